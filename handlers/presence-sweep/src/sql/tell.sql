-- What happened to connections: $1 number of the call · $2, $3 are another statement's · $4 ids of the events · $5 types
-- · $6 users · $7 payloads.
with
told as (
  select *, 'user:' || user_id as key, switchboard.shard('user:' || user_id) as shard
  from unnest($1::int[], $2::text[], $3::text[], $4::uuid[], $5::text[], $6::text[], $7::text[])
    as told(n, listed, display_name, id, event_type, user_id, payload)
),
written as (
  insert into switchboard.outbox (shard, position, id, event_type, key, payload)
  select shard, switchboard.next_position(shard), id, event_type, key, payload::json from told
)
select n, shard::int as shard from told
