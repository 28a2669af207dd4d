-- Position epochs: which history a position belongs to.
--
-- A failover to a replica that lagged, and a restore, take history back: numbers that were given out are given out again,
-- for other things. A position alone cannot tell the two apart; a position and its epoch can. A new epoch begins with
-- the first write, or the first look of a node, on another timeline or another cluster. See
-- docs/decisions/position-epochs.md.

create table switchboard.epochs (
  ordinal           integer     primary key check (ordinal between 0 and 134217727),
  epoch             uuid        not null unique default gen_random_uuid(),
  system_identifier bigint      not null,
  timeline          bigint      not null,
  began_at          timestamptz not null default clock_timestamp()
);
comment on table switchboard.epochs is
  'The histories that this database went through, oldest first; the newest row is the present one. Never changed.';
comment on column switchboard.epochs.ordinal is
  'Rises with every epoch. Beside the rows that an epoch wrote, and the high bits of positions between nodes: 27 bits.';
comment on column switchboard.epochs.epoch is
  'What clients are told. Random, because two servers that were promoted from one backup may both call themselves timeline 2.';
comment on column switchboard.epochs.system_identifier is 'Of the cluster: pg_control_system().';
comment on column switchboard.epochs.timeline is 'Of the cluster: raised by every promotion and every point-in-time recovery.';
grant select on switchboard.epochs to public;

-- An ordinal also says when its epoch began, in steps of 8 s since 2026: two servers that were promoted from one backup at
-- different times have different ordinals, although neither knows of the other. The clock only breaks this tie; within one
-- database an ordinal is above the one before it whatever the clock says. 27 bits last to 2060.
create function switchboard.next_epoch_ordinal() returns integer
  language sql volatile set search_path = pg_catalog, pg_temp
  as $$
    select greatest(
      coalesce((select max(ordinal) + 1 from switchboard.epochs), 0),
      floor(extract(epoch from clock_timestamp() - timestamptz '2026-01-01 00:00Z') / 8)::integer)
  $$;
revoke all on function switchboard.next_epoch_ordinal from public;

-- Which history the server writes: its cluster and the timeline. Both are 0 on a service that hides them; there only
-- `begin_epoch` begins an epoch.
create function switchboard.server_history(out system_identifier bigint, out timeline bigint)
  language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
  select control.system_identifier into server_history.system_identifier from pg_control_system() as control;
  -- The name of a WAL file begins with the timeline that is written to.
  timeline := ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::bigint;
exception when insufficient_privilege or feature_not_supported then
  system_identifier := 0;
  timeline := 0;
end $$;
revoke all on function switchboard.server_history from public;

-- The ordinal of the epoch that this transaction belongs to. Whoever writes something that has a position calls it in the
-- same transaction, so that the first row on a new timeline is in the new epoch. On a server that takes no writes it is the
-- newest epoch that is known there.
create function switchboard.current_epoch() returns integer
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  known switchboard.epochs;
  running record;
begin
  select * into known from switchboard.epochs order by ordinal desc limit 1;
  if pg_is_in_recovery() then
    return known.ordinal;
  end if;
  running := switchboard.server_history();
  if known.timeline = running.timeline and known.system_identifier = running.system_identifier
    or current_setting('transaction_read_only')::boolean then
    return known.ordinal;
  end if;
  -- One caller begins it; the others wait for its COMMIT and find it.
  perform pg_advisory_xact_lock(hashtextextended('switchboard.epochs', 0));
  select * into known from switchboard.epochs order by ordinal desc limit 1;
  if known.timeline is distinct from running.timeline or known.system_identifier is distinct from running.system_identifier then
    insert into switchboard.epochs (ordinal, system_identifier, timeline)
      values (switchboard.next_epoch_ordinal(), running.system_identifier, running.timeline)
      returning * into known;
  end if;
  return known.ordinal;
end $$;

-- For operators: history was taken back in a way that leaves the timeline as it was, for instance by a snapshot of the disk.
create function switchboard.begin_epoch() returns uuid
  language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
  begun uuid;
begin
  perform pg_advisory_xact_lock(hashtextextended('switchboard.epochs', 0));
  insert into switchboard.epochs (ordinal, system_identifier, timeline)
    select switchboard.next_epoch_ordinal(), running.system_identifier, running.timeline
    from switchboard.server_history() as running
    returning epoch into begun;
  return begun;
end $$;
revoke all on function switchboard.begin_epoch from public;
comment on function switchboard.begin_epoch is
  'Begins a new position epoch: after this database was put back to an older state with the same timeline.';

-- The first one is 0, whenever it begins: everything that was written before epochs were counted belongs to it.
insert into switchboard.epochs (ordinal, system_identifier, timeline)
  select 0, running.system_identifier, running.timeline from switchboard.server_history() as running;
