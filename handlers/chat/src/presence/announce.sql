-- Whose status changed: what Postgres knows of it, and the events. $1 number of the call · $2 ids of the events · $3 users
-- · $4 statuses · $5 versions · $6 last seen in milliseconds · $7 the same as it is written.
-- An older version than the one that is known comes too late, and tells nothing.
with
told as (
  select distinct on (user_id) *
  from unnest($1::int[], $2::uuid[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::text[])
    as told(n, id, user_id, status, version, last_seen_ms, last_seen)
  order by user_id, version desc
),
kept as (
  insert into app.presence as known (user_id, status, version, last_seen)
  select user_id, status, version, to_timestamp(last_seen_ms / 1000.0) from told order by user_id
  on conflict (user_id) do update set
    was = known.status, status = excluded.status, version = excluded.version, last_seen = excluded.last_seen
  where known.version < excluded.version
  returning user_id, was, status, version
),
written as (
  insert into switchboard.outbox (shard, position, id, event_type, key, payload)
  select shard, switchboard.next_position(shard), id, event_type, key, payload
  from (
    select
      told.id, 'user:' || told.user_id as key, switchboard.shard('user:' || told.user_id) as shard,
      case when kept.status = 'offline' then 'user.offline' when kept.was = 'offline' then 'user.online'
        else 'user.status' end as event_type,
      json_build_object('user_id', told.user_id, 'status', told.status, 'last_seen', told.last_seen) as payload
    from kept join told using (user_id)
    where kept.was <> kept.status) as event
)
select
  asked.n, asked.user_id, switchboard.shard('user:' || asked.user_id)::int as shard,
  coalesce(kept.version, known.version) as version
from unnest($1::int[], $3::text[]) as asked(n, user_id)
left join kept using (user_id)
left join app.presence as known on known.user_id = asked.user_id
