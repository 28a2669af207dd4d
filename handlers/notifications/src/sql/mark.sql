-- Marks one read and tells the person's connections; no row where it is not there, no event where it was read before.
-- $1 id · $2 who · $3 now in milliseconds · $4 id of the event
with
marked as (
  update app.notifications as notification set read_at = to_timestamp($3::bigint / 1000.0)
  where notification.id = $1::uuid and notification.user_id = $2
    and notification.deleted_at is null and notification.read_at is null
  returning notification.*
),
shown as (
  select app.notification_text(notification) as text from marked as notification
  union all
  select app.notification_text(notification) from app.notifications as notification
  where notification.id = $1::uuid and notification.user_id = $2
    and notification.deleted_at is null and notification.read_at is not null
),
-- The count is of before the mark.
counted as (select app.unread_notifications($2) - (select count(*) from marked) as unread),
announced as (
  insert into switchboard.outbox (shard, position, id, event_type, key, payload)
  select shard, switchboard.next_position(shard), $4::uuid, 'published', 'user:' || $2,
    ('{"target":' || to_json('user:' || $2) || ',"type":"notification.read","payload":{"id":"' || $1::uuid
      || '","read_at":"' || app.rfc3339(to_timestamp($3 / 1000.0)) || '","unread":' || counted.unread
      || ',"notification":' || app.notification_text(marked) || '}}')::json
  from marked, counted, switchboard.shard('user:' || $2) as shard
)
select
  shown.text as notification, counted.unread,
  (select switchboard.shard('user:' || $2)::int from marked) as shard
from shown, counted
