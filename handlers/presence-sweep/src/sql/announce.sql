-- Whose presence changed: $1 ids of the events · $2 users · $3 payloads · $4 type.
insert into switchboard.outbox (shard, position, id, event_type, key, payload)
select shard, switchboard.next_position(shard), id, $4::text, key, payload::json
from (
  select id, 'user:' || user_id as key, switchboard.shard('user:' || user_id) as shard, payload
  from unnest($1::uuid[], $2::text[], $3::text[]) as changed(id, user_id, payload)) as event
returning shard::int
