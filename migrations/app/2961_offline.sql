-- What `offline` may do, and how it finds where an absence begins.

-- The last seq of a conversation, not below `low`, whose message is older than `since`. Ids never fall behind within a
-- conversation, so halving finds it: some twenty probes for a million messages.
create function app.seq_before(conversation uuid, low bigint, high bigint, since uuid) returns bigint
  language plpgsql stable parallel safe set search_path = app, pg_temp as $$
declare
  middle bigint;
begin
  while high - low > 1 loop
    middle := (low + high) / 2;
    if exists (select from app.messages where conversation_id = conversation and seq = middle and id < since) then
      low := middle;
    else
      high := middle;
    end if;
  end loop;
  return low;
end $$;

select switchboard.ensure_role('offline');
grant usage on schema app to switchboard_offline;
grant select on app.conversations, app.participants, app.users, app.messages, app.presence to switchboard_offline;
grant execute on function app.mark(int[], text[], text[], json[]) to switchboard_offline;
