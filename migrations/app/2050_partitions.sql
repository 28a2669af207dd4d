-- Months are made ahead; a row whose month is missing lands in the DEFAULT partition, so no insert ever fails for want of
-- one. Before such a month is made its rows move out of DEFAULT, which could not be attached beside otherwise.

-- One month of one table. Returns how many rows came out of DEFAULT, null where the month existed.
create function app.ensure_month(parent text, month date) returns bigint
  language plpgsql set search_path = app, pg_temp as $$
declare
  partition text := format('%s_%s', parent, to_char(month, 'YYYY_MM'));
  low uuid := app.uuid_floor(date_trunc('month', month::timestamp) at time zone 'UTC');
  high uuid := app.uuid_floor((date_trunc('month', month::timestamp) + interval '1 month') at time zone 'UTC');
  columns text;
  moved bigint;
begin
  if to_regclass(format('app.%I', partition)) is not null then
    return null;
  end if;
  -- Generated columns cannot be copied; they are made again.
  select string_agg(quote_ident(attname), ', ' order by attnum) into columns
    from pg_attribute
    where attrelid = format('app.%I', parent)::regclass and attnum > 0 and not attisdropped and attgenerated = '';
  execute format('create table app.%I (like app.%I including all)', partition, parent);
  -- From here to the end nobody writes to DEFAULT: a row that arrived after the move would forbid the attachment.
  execute format('lock table app.%I in access exclusive mode', parent || '_default');
  execute format(
    'with gone as (delete from app.%I where id >= %L and id < %L returning %s) insert into app.%I (%s) select %s from gone',
    parent || '_default', low, high, columns, partition, columns, columns);
  get diagnostics moved = row_count;
  execute format('alter table app.%I attach partition app.%I for values from (%L) to (%L)', parent, partition, low, high);
  return moved;
end $$;

-- This month and so many after it, for every partitioned table of the product; also the last one where rows of it are in
-- DEFAULT. Called by housekeeping, and here once. Returns how many rows came out of DEFAULT.
--
-- An empty month costs an append nothing that can be measured (CPU of the server with 1 and with 3 months ahead: 0.61 and
-- 0.62 ms for one message, 2.2 and 2.2 ms for 16 in as many conversations), so there may be several.
create function app.ensure_partitions(months_ahead integer default 3) returns bigint
  language plpgsql security definer set search_path = app, pg_temp as $$
declare
  parent text;
  ahead integer;
  month date;
  stray boolean;
  moved bigint := 0;
begin
  -- One at a time; a second caller finds the work done.
  perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('app.ensure_partitions'));
  for parent in
    select relname from pg_catalog.pg_class
    where relnamespace = 'app'::regnamespace and relkind = 'p' order by relname
  loop
    for ahead in -1 .. least(months_ahead, 24) loop
      month := (date_trunc('month', now() at time zone 'UTC') + make_interval(months => ahead))::date;
      stray := true;
      if ahead < 0 then
        execute format('select exists (select from app.%I where id >= %L and id < %L)', parent || '_default',
          app.uuid_floor(month::timestamp at time zone 'UTC'),
          app.uuid_floor((month::timestamp + interval '1 month') at time zone 'UTC')) into stray;
      end if;
      if stray then
        moved := moved + coalesce(app.ensure_month(parent, month), 0);
      end if;
    end loop;
  end loop;
  return moved;
end $$;

-- Making a month locks DEFAULT. Behind a long writer it would wait, and everybody else behind it; so it gives up and comes
-- again: months are made ahead.
alter function app.ensure_month(text, date) set lock_timeout = '500ms';

-- Drops the months of a table that lie before the last so many full ones. Returns how many months went.
--
-- The numbers of a conversation go on where they were: its last message, and its last change, are kept in DEFAULT even when
-- their month goes, because the next number is found beside them.
create function app.drop_months(parent text, months_kept integer) returns bigint
  language plpgsql security definer set search_path = app, pg_temp set lock_timeout = '500ms' as $$
declare
  number text := case parent when 'messages' then 'seq' when 'message_changes' then 'change' end;
  partition text;
  columns text;
  last uuid[];
  dropped bigint := 0;
begin
  if parent not in ('messages', 'message_changes', 'notifications') or months_kept < 2 then
    raise exception 'months of % are not dropped after %', parent, months_kept using errcode = 'invalid_parameter_value';
  end if;
  perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('app.ensure_partitions'));
  select string_agg(quote_ident(attname), ', ' order by attnum) into columns
    from pg_attribute
    where attrelid = format('app.%I', parent)::regclass and attnum > 0 and not attisdropped and attgenerated = '';
  for partition in
    select c.relname from pg_catalog.pg_class as c join pg_catalog.pg_inherits as i on i.inhrelid = c.oid
    where i.inhparent = format('app.%I', parent)::regclass and c.relname ~ ('^' || parent || '_\d{4}_\d{2}$')
      and to_date(right(c.relname, 7), 'YYYY_MM')
        < (date_trunc('month', now() at time zone 'UTC') - make_interval(months => months_kept))::date
    order by c.relname
  loop
    -- Before anything is locked: a conversation that somebody writes to meanwhile keeps a row too many.
    if number is not null then
      execute format(
        'select array_agg(newest.id) from (
           select distinct on (conversation_id) conversation_id, %2$I as number, id from app.%1$I
           order by conversation_id, %2$I desc) as newest
         where not exists (
           select from app.%3$I as later
           where later.conversation_id = newest.conversation_id and later.%2$I > newest.number)',
        partition, number, parent) into last;
    end if;
    execute format('alter table app.%I detach partition app.%I', parent, partition);
    if last is not null then
      execute format('insert into app.%1$I (%2$s) select %2$s from app.%3$I where id = any ($1)', parent, columns, partition)
        using last;
    end if;
    execute format('drop table app.%I', partition);
    dropped := dropped + 1;
  end loop;
  return dropped;
end $$;

revoke all on function app.ensure_month(text, date), app.ensure_partitions(integer), app.drop_months(text, integer)
  from public;
select app.ensure_partitions();
