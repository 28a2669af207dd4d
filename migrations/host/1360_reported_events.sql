-- A session that sets `switchboard.report_events` is told which events it inserts, with their positions: by a message of
-- the level INFO, before the answer to its statement. After its COMMIT, the node has these events without another query.
-- Nothing depends on it: a node that gets no such message reads the events from the outbox.

create function switchboard.report_events() returns trigger
  language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  events text;
begin
  -- A large report is not worth it: the node would hold it in memory until the COMMIT. It then learns only that there
  -- are events, and reads them. A key may need six bytes of JSON for each of its own. The server's own log gets a report
  -- where it takes messages of this level; then no payload may be in it.
  select case
    when count(*) = 0 then null
    when count(*) > 1000
      or sum(octet_length(payload::text) + 6 * (octet_length(key) + octet_length(event_type))) > 262144
      or current_setting('log_min_messages') ~ 'debug|info'
    then 'not reported'
    else (select json_agg(json_build_array(
      shard, position, id, event_type, key, (extract(epoch from created_at) * 1000)::bigint, payload))::text
      from inserted)
  end into events from inserted;
  if events is not null then
    raise info using message = 'switchboard.events', detail = events;
  end if;
  return null;
end $$;
revoke all on function switchboard.report_events from public;
comment on function switchboard.report_events is
  'Reports the inserted events to the session that inserts them, if it has set switchboard.report_events.';

create trigger report_events after insert on switchboard.outbox
  referencing new table as inserted for each statement
  when (current_setting('switchboard.report_events', true) = 'on')
  execute function switchboard.report_events();
