-- Deletes one, softly, and tells the person's connections; no row where it is not there.
-- $1 id · $2 who · $3 now in milliseconds · $4 id of the event
with
deleted as (
  update app.notifications as notification set deleted_at = to_timestamp($3::bigint / 1000.0)
  where notification.id = $1::uuid and notification.user_id = $2 and notification.deleted_at is null
  returning notification.read_at
),
-- The count is of before the deletion.
counted as (
  select app.unread_notifications($2) - (select count(*) from deleted where read_at is null) as unread
),
announced as (
  insert into switchboard.outbox (shard, position, id, event_type, key, payload)
  select shard, switchboard.next_position(shard), $4::uuid, 'published', 'user:' || $2,
    ('{"target":' || to_json('user:' || $2) || ',"type":"notification.read","payload":{"id":"' || $1::uuid
      || '","deleted":true,"unread":' || counted.unread || '}}')::json
  from deleted, counted, switchboard.shard('user:' || $2) as shard
)
select switchboard.shard('user:' || $2)::int as shard from deleted
