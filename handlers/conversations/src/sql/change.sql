-- What is not given stays: $1 id · $2 name · $3, $4 slug given, and it · $5, $6 description likewise · $7 settings
-- $8, $9 capacity likewise · $10 visibility · $11 now in milliseconds
update app.conversations set
  name = coalesce($2::text, name),
  slug = case when $3::boolean then $4::text else slug end,
  description = case when $5::boolean then $6::text else description end,
  settings = coalesce($7::jsonb, settings),
  capacity = case when $8::boolean then $9::int else capacity end,
  visibility = coalesce($10::text, visibility),
  updated_at = to_timestamp($11::bigint / 1000.0)
where id = $1::uuid
