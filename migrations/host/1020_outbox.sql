-- The outbox is the queue: an event is written in the transaction of the change that it tells.
--
--   select switchboard.lock(array['conv:' || …]);              -- a statement of its own
--   insert into switchboard.outbox (shard, position, id, event_type, key, payload)
--   select s, switchboard.next_position(s), $2, $3, $4, $5 from switchboard.shard($4) as s returning shard;
--
-- Events with one key are in the order of their commits if their writers hold the key's lock: it lasts to COMMIT. Between
-- keys the order is that of the positions, which come from a sequence and have holes while a transaction runs.

-- Of eight. Part of the stored data: never changed.
create function switchboard.shard(key text) returns smallint
  language sql immutable strict parallel safe
  as $$ select (hashtextextended(key, 0) & 7)::smallint $$;

create sequence switchboard.outbox_position_0;
create sequence switchboard.outbox_position_1;
create sequence switchboard.outbox_position_2;
create sequence switchboard.outbox_position_3;
create sequence switchboard.outbox_position_4;
create sequence switchboard.outbox_position_5;
create sequence switchboard.outbox_position_6;
create sequence switchboard.outbox_position_7;

create function switchboard.next_position(shard smallint) returns bigint
  language plpgsql volatile strict security definer set search_path = pg_catalog, pg_temp as $$
begin
  -- A transaction has its id before it has a position: so once the oldest running id is beyond those that a reader saw
  -- running, the holes that it saw are empty for ever.
  perform pg_current_xact_id();
  return nextval(('switchboard.outbox_position_' || shard)::regclass);
end $$;

-- Daily partitions by the time in the id. Insert only: cleaning is dropping partitions that every consumer has passed.
-- No checks: Postgres reads and plans them anew for every statement that inserts, which cost more than the insert.
create table switchboard.outbox (
  shard      smallint    not null,
  position   bigint      not null,
  id         uuid        primary key,
  event_type text        not null,
  key        text        not null,
  payload    json        not null,
  created_at timestamptz not null default now()
) partition by range (id);
create index outbox_by_position on switchboard.outbox (shard, position);
create table switchboard.outbox_default partition of switchboard.outbox default;

comment on column switchboard.outbox.shard is 'switchboard.shard(key).';
comment on column switchboard.outbox.position is 'switchboard.next_position(shard): rises within the shard, with holes.';
comment on column switchboard.outbox.id is 'A UUIDv7: its time chooses the partition. The same on every delivery.';
comment on column switchboard.outbox.event_type is 'For instance message.created; consumers choose by it.';
comment on column switchboard.outbox.key is 'Events of one key stay in order.';

-- The smallest UUIDv7 of a moment.
create function switchboard.uuid_floor(at timestamptz) returns uuid
  language sql immutable strict parallel safe
  as $$ select (lpad(to_hex((extract(epoch from at) * 1000)::bigint), 12, '0') || '00000000000000000000')::uuid $$;

-- One day. Null where it existed, else the rows that came out of DEFAULT, which would forbid the partition.
create function switchboard.ensure_outbox_day(day date) returns bigint
  language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  partition text := 'outbox_' || to_char(day, 'YYYY_MM_DD');
  low uuid := switchboard.uuid_floor(day::timestamp at time zone 'UTC');
  high uuid := switchboard.uuid_floor((day + 1)::timestamp at time zone 'UTC');
  moved bigint;
begin
  if to_regclass(format('switchboard.%I', partition)) is not null then
    return null;
  end if;
  -- Nobody writes to DEFAULT between the move and the attachment.
  lock table switchboard.outbox_default in access exclusive mode;
  execute format('create table switchboard.%I (like switchboard.outbox including all)', partition);
  execute format(
    'with gone as (delete from switchboard.outbox_default where id >= %L and id < %L returning *)
     insert into switchboard.%I select * from gone', low, high, partition);
  get diagnostics moved = row_count;
  execute format('alter table switchboard.outbox attach partition switchboard.%I for values from (%L) to (%L)',
    partition, low, high);
  return moved;
end $$;

-- Yesterday, for clocks that lag, to so many days ahead. One caller at a time.
create function switchboard.ensure_outbox(days_ahead int) returns void
  language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  today date := (now() at time zone 'UTC')::date;
begin
  perform pg_advisory_xact_lock(hashtextextended('switchboard.ensure_outbox', 0));
  for ahead in -1 .. days_ahead loop
    perform switchboard.ensure_outbox_day(today + ahead);
  end loop;
end $$;
revoke all on function switchboard.ensure_outbox_day, switchboard.ensure_outbox from public;

select switchboard.ensure_outbox(2);
