-- The poll of a node. $1 node · $2 address of its admin listener · $3 version · $4 open connections · $5, $6,
-- $7, $8 the consumers, shards, position epochs and epochs of the cursors that it holds · $9 its consumers ·
-- $10 lease of a cursor in milliseconds · $11 a lease with less left than this is renewed · $12 the silence
-- after which a node is deleted · $13 the handlers whose timers it fires.
with
gone as (
  delete from switchboard.nodes where heartbeat_at < now() - $12 * interval '1 millisecond' and id <> $1
),
-- `xmax` is 0 in a row that was inserted, and not in one that was updated.
heartbeat as (
  insert into switchboard.nodes (id, address, version, connections) values ($1, $2, $3, $4)
  on conflict (id) do update set heartbeat_at = now(), connections = excluded.connections
  returning xmax = 0 as is_new_node
),
present as materialized (
  select switchboard.current_epoch() as epoch
),
kept as materialized (
  select c.consumer, c.shard, c.lease_until
  from unnest($5::text[], $6::smallint[], $7::int[], $8::bigint[]) as held (consumer, shard, history, epoch)
  join switchboard.cursors c using (consumer, shard, epoch)
  join present on present.epoch = held.history
  where c.owner = $1 and c.lease_until >= now()
),
-- A row that another transaction has locked is renewed by the next poll: the heartbeat does not wait for it.
renewable as materialized (
  select c.consumer, c.shard
  from switchboard.cursors c join kept using (consumer, shard)
  where c.owner = $1 and c.lease_until >= now() and c.lease_until < now() + $11 * interval '1 millisecond'
  order by c.consumer, c.shard
  for update of c skip locked
),
renewed as (
  update switchboard.cursors c set lease_until = now() + $10 * interval '1 millisecond'
  from renewable where c.consumer = renewable.consumer and c.shard = renewable.shard
)
select
  (select is_new_node from heartbeat) as is_new_node,
  (select generation from switchboard.fleet) as generation,
  (select epoch from present) as epoch,
  (select coalesce(max(position), 0) from switchboard.revocations) as revocations,
  (select redis_generation from switchboard.fleet_identity) as redis_generation,
  array[
    (select case when is_called then last_value else 0 end from switchboard.outbox_position_0),
    (select case when is_called then last_value else 0 end from switchboard.outbox_position_1),
    (select case when is_called then last_value else 0 end from switchboard.outbox_position_2),
    (select case when is_called then last_value else 0 end from switchboard.outbox_position_3),
    (select case when is_called then last_value else 0 end from switchboard.outbox_position_4),
    (select case when is_called then last_value else 0 end from switchboard.outbox_position_5),
    (select case when is_called then last_value else 0 end from switchboard.outbox_position_6),
    (select case when is_called then last_value else 0 end from switchboard.outbox_position_7)
  ] as heads,
  array(select consumer from kept order by consumer, shard) as kept_consumers,
  array(select shard from kept order by consumer, shard) as kept_shards,
  -- A shard that is leased to this node and was not asked for is free too: the answer to its claim was lost,
  -- or it was claimed in an earlier position epoch.
  array(
    select distinct c.consumer from switchboard.cursors c
    where c.consumer = any ($9::text[])
      and (c.lease_until < now()
           or c.owner = $1 and not exists (select from kept where kept.consumer = c.consumer and kept.shard = c.shard))
  ) as free,
  -- One probe of an index for each handler.
  (
    select min(extract(epoch from t.next_at - now()) * 1000)::float8
    from unnest($13::text[]) as h (handler) cross join lateral (
      select next_at from switchboard.timers
      where timers.handler = h.handler and parked_at is null
      order by next_at limit 1
    ) as t
  ) as timer_due_in
