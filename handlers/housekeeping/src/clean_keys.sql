-- One batch of keys that no retry needs any more: $1 days that are kept, never fewer than 7 · $2 rows.
delete from app.message_keys
where ctid = any (array(
  select key.ctid from app.message_keys as key
  where key.created_at < now() - make_interval(days => greatest($1::int, 7))
  limit $2::int))
