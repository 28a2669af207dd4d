-- Messages and changes know the position epoch in which they were written, so that a client of an older one can be told how
-- far it still agrees with this history (`switchboard.epochs`).

alter table app.messages add column epoch integer;
alter table app.message_changes add column epoch integer;
-- A writer that does not name it, for instance an older release, writes in the present one.
alter table app.messages alter column epoch set default switchboard.current_epoch();
alter table app.message_changes alter column epoch set default switchboard.current_epoch();
comment on column app.messages.epoch is
  'switchboard.epochs.ordinal; null before epochs were counted, which is 0. Never falls with seq within a conversation.';
comment on column app.message_changes.epoch is
  'switchboard.epochs.ordinal; null before epochs were counted, which is 0. Never falls with change within a conversation.';

-- The highest seq up to `head` that was written in the epoch `known` or before: what a client of that epoch has in common with
-- this history. Looked for from the head backwards in growing steps, so right after a failover it is found at once, and later
-- in about two probes for each doubling of what was sent since. A message that is not there any more (`drop_months`) is
-- older than what is, and counts as common.
create function app.common_seq(conversation uuid, head bigint, known integer) returns bigint
  language plpgsql stable parallel safe set search_path = app, pg_temp as $$
declare
  -- `common` is in common, `other` is not, and both close in.
  common bigint;
  other bigint := head + 1;
  step bigint := 1;
begin
  loop
    common := greatest(other - step, 0);
    exit when common = 0 or not exists (
      select from app.messages as m where m.conversation_id = conversation and m.seq = common and m.epoch > known);
    other := common;
    step := step * 2;
  end loop;
  while other - common > 1 loop
    step := (common + other) / 2;
    if exists (
      select from app.messages as m where m.conversation_id = conversation and m.seq = step and m.epoch > known)
    then
      other := step;
    else
      common := step;
    end if;
  end loop;
  return common;
end $$;

-- The same for edits and deletions.
create function app.common_change(conversation uuid, head bigint, known integer) returns bigint
  language plpgsql stable parallel safe set search_path = app, pg_temp as $$
declare
  common bigint;
  other bigint := head + 1;
  step bigint := 1;
begin
  loop
    common := greatest(other - step, 0);
    exit when common = 0 or not exists (
      select from app.message_changes as c where c.conversation_id = conversation and c.change = common and c.epoch > known);
    other := common;
    step := step * 2;
  end loop;
  while other - common > 1 loop
    step := (common + other) / 2;
    if exists (
      select from app.message_changes as c where c.conversation_id = conversation and c.change = step and c.epoch > known)
    then
      other := step;
    else
      common := step;
    end if;
  end loop;
  return common;
end $$;
