-- Tells the person's connections that all up to an id are read: $1 who · $2 up to · $3 now in milliseconds · $4 id of the
-- event
with announced as (
  insert into switchboard.outbox (shard, position, id, event_type, key, payload)
  select shard, switchboard.next_position(shard), $4::uuid, 'published', 'user:' || $1,
    ('{"target":' || to_json('user:' || $1) || ',"type":"notification.read","payload":{"all":true,"up_to":"' || $2::uuid
      || '","read_at":"' || app.rfc3339(to_timestamp($3::bigint / 1000.0)) || '","unread":'
      || app.unread_notifications($1) || '}}')::json
  from switchboard.shard('user:' || $1) as shard
)
select switchboard.shard('user:' || $1)::int as shard
