-- Cleaning the outbox is dropping partitions. What a consumer has not passed stays, and the last days stay for operators.

create function switchboard.drop_passed_outbox(days_kept int) returns int
  language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  partition text;
  unpassed boolean;
  dropped int := 0;
begin
  perform pg_advisory_xact_lock(hashtextextended('switchboard.ensure_outbox', 0));
  for partition in
    select c.relname from pg_class c join pg_inherits i on i.inhrelid = c.oid
    where i.inhparent = 'switchboard.outbox'::regclass
      and c.relname ~ '^outbox_\d{4}_\d{2}_\d{2}$'
      and to_date(substr(c.relname, 8), 'YYYY_MM_DD') < (now() at time zone 'UTC')::date - days_kept
    order by c.relname
  loop
    execute format(
      'select exists (
         select from (select shard, max(position) as last from switchboard.%I group by shard) as p
         join switchboard.cursors as c using (shard)
         where c.high < p.last
            or exists (select from jsonb_array_elements(c.holes) as hole where (hole ->> 0)::bigint <= p.last))',
      partition) into unpassed;
    -- Later partitions hold later positions: nothing behind this one has been passed either.
    exit when unpassed;
    execute format('drop table switchboard.%I', partition);
    dropped := dropped + 1;
  end loop;
  return dropped;
end $$;
revoke all on function switchboard.drop_passed_outbox from public;
comment on function switchboard.drop_passed_outbox is
  'Drops days of the outbox that are older than so many and that every consumer has passed. How many.';
