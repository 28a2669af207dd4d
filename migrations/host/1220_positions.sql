-- What every event pays, paid less; and housekeeping that nobody waits for.

-- As before, but a plain expression of the statement that calls it: 0.3 µs a row instead of 3. The argument of `nextval`
-- is evaluated before it, and with it the transaction gets its id before its position. So callers need the sequences
-- themselves, which gives them nothing new: whoever may call this may use up positions, and none may set them.
create or replace function switchboard.next_position(shard smallint) returns bigint
  language sql volatile
  return nextval(case when pg_current_xact_id() is not null then
    case shard
      when 0 then 'switchboard.outbox_position_0'::regclass
      when 1 then 'switchboard.outbox_position_1'::regclass
      when 2 then 'switchboard.outbox_position_2'::regclass
      when 3 then 'switchboard.outbox_position_3'::regclass
      when 4 then 'switchboard.outbox_position_4'::regclass
      when 5 then 'switchboard.outbox_position_5'::regclass
      when 6 then 'switchboard.outbox_position_6'::regclass
      when 7 then 'switchboard.outbox_position_7'::regclass
    end
  end);
alter function switchboard.next_position(smallint) security invoker;
alter function switchboard.next_position(smallint) reset all;
grant usage on sequence
  switchboard.outbox_position_0, switchboard.outbox_position_1, switchboard.outbox_position_2,
  switchboard.outbox_position_3, switchboard.outbox_position_4, switchboard.outbox_position_5,
  switchboard.outbox_position_6, switchboard.outbox_position_7 to public;

-- A new day locks DEFAULT, and a dropped one the whole outbox. Behind a long reader (a dump) they would wait, and every
-- other reader behind them; so they give up, and come again: days are made ahead.
alter function switchboard.ensure_outbox_day(date) set lock_timeout = '500ms';
alter function switchboard.drop_passed_outbox(int) set lock_timeout = '500ms';
