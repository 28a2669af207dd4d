-- What one wants to be called; what is not given stays. $1 who · $2 the name in the token, for who has no entry yet
-- $3, $4 display name given, and it · $5, $6 username likewise · $7, $8 avatar · $9, $10 email · $11 now in milliseconds
insert into app.users as person (id, display_name, username, avatar_url, email, edited, updated_at)
values (
  $1::text, case when $3::boolean then $4::text else $2::text end, $6::text, $8::text, $10::text, $3,
  to_timestamp($11::bigint / 1000.0))
on conflict (id) do update set
  display_name = case when $3 then excluded.display_name else person.display_name end,
  username = case when $5::boolean then excluded.username else person.username end,
  avatar_url = case when $7::boolean then excluded.avatar_url else person.avatar_url end,
  email = case when $9::boolean then excluded.email else person.email end,
  edited = person.edited or $3,
  -- The version of the entry: it only rises.
  updated_at = greatest(excluded.updated_at, person.updated_at + interval '1 microsecond')
returning
  (extract(epoch from person.updated_at) * 1000000)::bigint as version,
  app.directory_text(person) as entry,
  rtrim(app.directory_text(person), '}') || ',"email":' || coalesce(to_json(person.email)::text, 'null') || '}' as own
