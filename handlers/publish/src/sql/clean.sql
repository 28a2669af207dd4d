-- Keys of more than a week, so many at once, the oldest first.
delete from app.publish_keys
where ctid = any(array(
  select ctid from app.publish_keys
  where created_at < now() - interval '7 days'
  order by created_at
  limit $1::int))
