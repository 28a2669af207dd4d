-- How a node asks whether a handler's role can write now: it logs in as the role and commits an update of one row.
--
-- The rows are made here and by `switchboard migrate`, never by the function, so a role cannot fill the table. A row that
-- another transaction holds is passed over: its holder proves that writing works, or its own probe fails.

create table switchboard.write_probes (
  role name not null,
  slot smallint not null check (slot between 0 and 31),
  at timestamptz not null default now(),
  primary key (role, slot)
) with (fillfactor = 20);
comment on table switchboard.write_probes is 'When each node last wrote with each role; a node has one slot. Only for readiness.';

-- True when the row was written.
create function switchboard.probe_write(node_slot bigint) returns boolean
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  free tid;
begin
  select probe.ctid into free from switchboard.write_probes as probe
    where probe.role = session_user and probe.slot = node_slot for update skip locked;
  if free is null then
    return false;
  end if;
  update switchboard.write_probes as probe set at = clock_timestamp()
    where probe.role = session_user and probe.slot = node_slot;
  return true;
end $$;
comment on function switchboard.probe_write is 'Commits one row for the role that asks, to prove that it can write.';

-- The rows of the roles that are there. Roles of later migrations get theirs from `switchboard migrate`.
create function switchboard.prepare_write_probes() returns void
  language sql set search_path = pg_catalog, pg_temp as $$
  insert into switchboard.write_probes (role, slot)
  select 'switchboard_' || name, slot from switchboard.roles cross join generate_series(0, 31) as slot
  on conflict do nothing
$$;
revoke all on function switchboard.prepare_write_probes from public;
select switchboard.prepare_write_probes();
