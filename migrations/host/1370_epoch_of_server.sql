-- What every message pays, paid less: a writer asks for the present epoch once for each statement that writes messages.
-- To read the system identifier opens a file, and to catch its errors begins a subtransaction. A server keeps its
-- identifier as long as it runs, so one comparison for each start of the server is enough. Its timeline can rise while it
-- runs (a promoted replica), so that is compared each time.

-- Every writer reads this table. Behind a long reader (a dump) this would wait, and every writer behind it; so it gives up,
-- and the operator migrates again.
set local lock_timeout = '2s';
alter table switchboard.epochs add column server_start timestamptz;
comment on column switchboard.epochs.server_start is
  'When the server started that was last found to write this history: pg_postmaster_start_time(). Only this column changes.';

create or replace function switchboard.current_epoch() returns integer
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  known switchboard.epochs;
  running record;
begin
  select * into known from switchboard.epochs order by ordinal desc limit 1;
  if pg_is_in_recovery() then
    return known.ordinal;
  end if;
  -- Timeline 0: this service hides it, so only `begin_epoch` begins an epoch.
  if known.server_start = pg_postmaster_start_time() and (known.timeline = 0
    or known.timeline = ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::bigint) then
    return known.ordinal;
  end if;
  running := switchboard.server_history();
  if known.timeline = running.timeline and known.system_identifier = running.system_identifier then
    if not current_setting('transaction_read_only')::boolean then
      -- Nobody waits for a transaction that has done the same and goes on.
      update switchboard.epochs set server_start = pg_postmaster_start_time()
        where ordinal = (select ordinal from switchboard.epochs where ordinal = known.ordinal for update skip locked);
    end if;
    return known.ordinal;
  end if;
  if current_setting('transaction_read_only')::boolean then
    return known.ordinal;
  end if;
  -- One caller begins it; the others wait for its COMMIT and find it.
  perform pg_advisory_xact_lock(hashtextextended('switchboard.epochs', 0));
  select * into known from switchboard.epochs order by ordinal desc limit 1;
  if known.timeline is distinct from running.timeline or known.system_identifier is distinct from running.system_identifier then
    insert into switchboard.epochs (ordinal, system_identifier, timeline, server_start)
      values (switchboard.next_epoch_ordinal(), running.system_identifier, running.timeline, pg_postmaster_start_time())
      returning * into known;
  end if;
  return known.ordinal;
end $$;

-- The trigger runs as the role that inserts, so a search path of its own protects nothing, and costs two changes of a setting.
alter function switchboard.report_events() reset search_path;
