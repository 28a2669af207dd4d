-- An event for the relay, unless its key was used before: then no row.
-- $1 id of the event · $2 target · $3 payload · $4 publisher · $5 its key, or null · $6 fingerprint
with
named as (
  insert into app.publish_keys (publisher, key, fingerprint, event_id)
  select $4::text, $5::text, $6::bigint, $1::uuid where $5 is not null
  on conflict (publisher, key) do nothing
  returning key
),
announced as (
  insert into switchboard.outbox (shard, position, id, event_type, key, payload)
  select shard, switchboard.next_position(shard), $1::uuid, 'published', $2::text, $3::json
  from switchboard.shard($2) as shard
  where $5 is null or exists (select from named)
)
select switchboard.shard($2)::int as shard where $5 is null or exists (select from named)
