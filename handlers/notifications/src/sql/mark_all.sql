-- Marks read what is unread up to an id, so many at once, and says how many: $1 who · $2 up to · $3 now in milliseconds
-- $4 how many at once
with
marked as (
  update app.notifications as notification set read_at = to_timestamp($3::bigint / 1000.0)
  -- As an array: each id is then probed in the one partition that can hold it.
  where notification.id = any(array(
      select unread.id from app.notifications as unread
      where unread.user_id = $1 and unread.deleted_at is null and unread.read_at is null and unread.id <= $2::uuid
      order by unread.id desc
      limit $4::int))
    and notification.deleted_at is null and notification.read_at is null
  returning 1
)
select count(*) as marked from marked
