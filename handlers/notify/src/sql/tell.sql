-- Events that tell people's own connections what changed, each with the person's unread count as it is now. In the
-- transaction of the change, after it: nothing is told that did not happen, and nothing that happened is left untold.
-- $1 JSON: the frame's type, whose it is, and the members of its payload as JSON text · $2 now in milliseconds
with
told as materialized (
  select told.*, 'user:' || told.user_id as key, switchboard.shard('user:' || told.user_id) as shard,
    app.unread_notifications(told.user_id) as unread
  from json_to_recordset($1::json) as told(n int, user_id text, type text, members text)
),
written as (
  insert into switchboard.outbox (shard, position, id, event_type, key, payload)
  select shard, switchboard.next_position(shard), app.uuid_at(to_timestamp($2::bigint / 1000.0)), 'published', key,
    ('{"target":' || to_json(key) || ',"type":"' || type || '","payload":{' || members || ',"unread":' || unread
      || '}}')::json
  from (select * from told order by n) as ordered
)
select distinct shard::int as shard from told
