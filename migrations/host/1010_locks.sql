-- The one way for a handler to lock what is not a row.

-- Until the end of the transaction, in an order that is the same for everyone. A statement of its own: the next one then
-- has a snapshot that sees what the last holder committed.
create function switchboard.lock(keys text[]) returns void
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  if cardinality(keys) > 1000 then
    raise exception 'at most 1000 keys can be locked at once' using errcode = 'program_limit_exceeded';
  end if;
  -- Before anything: a reader of the outbox tells by transaction ids which positions may still come.
  perform pg_current_xact_id();
  perform pg_advisory_xact_lock(hash)
    from (select distinct hashtextextended(key, 0) as hash from unnest(keys) as key where key is not null order by 1) as sorted;
end $$;
comment on function switchboard.lock is 'Locks these names until COMMIT, sorted, so that two callers never wait for each other.';
