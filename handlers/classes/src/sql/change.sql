-- What is not given stays: $1 class · $2 name · $3 code · $4, $5 description given, and it · $6 archived
-- $7 now in milliseconds
update app.classes set
  name = coalesce($2::text, name),
  code = coalesce($3::text, code),
  description = case when $4::boolean then $5::text else description end,
  archived_at = case $6::boolean when true then coalesce(archived_at, at) when false then null else archived_at end,
  updated_at = at
from (select to_timestamp($7::bigint / 1000.0) as at) as now
where id = $1::uuid
