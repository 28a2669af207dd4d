-- An event of a conversation: $1 its id · $2 id of the event · $3 type · $4 payload
insert into switchboard.outbox (shard, position, id, event_type, key, payload)
select shard, switchboard.next_position(shard), $2::uuid, $3::text, key, $4::json
from (select key, switchboard.shard(key) as shard from (select 'conv:' || $1::uuid as key) as named) as event
