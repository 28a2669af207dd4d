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

-- This month and so many after it, for every partitioned table. Called by housekeeping, and here once.
-- One suffices: every further empty month costs a probe wherever a conversation's head is read.
create function app.ensure_partitions(months_ahead integer default 1) returns void
  language plpgsql security definer set search_path = app, pg_temp as $$
declare
  parent text;
  ahead integer;
begin
  -- One at a time; a second caller finds the work done.
  perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('app.ensure_partitions'));
  foreach parent in array array['messages', 'message_changes', 'notifications'] loop
    for ahead in 0 .. least(months_ahead, 24) loop
      perform app.ensure_month(parent,
        (date_trunc('month', now() at time zone 'UTC') + make_interval(months => ahead))::date);
    end loop;
  end loop;
end $$;

revoke all on function app.ensure_month(text, date), app.ensure_partitions(integer) from public;
select app.ensure_partitions();
