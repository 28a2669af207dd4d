-- A handler can be retired: an operator takes it out of the fleet. Its row in `running` goes, its history stays, and the
-- last switch of its name says `retire`. A later deploy or rollback brings it back.

alter table switchboard.history drop constraint history_action_check;
alter table switchboard.history add constraint history_action_check
  check (action in ('deploy', 'canary', 'promote', 'withdraw', 'shadow', 'unshadow', 'rollback', 'retire'));
comment on column switchboard.history.digest is
  'What runs, or stands beside it, from here on. Of a retirement: the release that was taken out.';

-- The cursors of a consumer that no release binds any more stay, so that it goes on where it was when it comes back. They
-- hold no partition of the outbox, or nothing could be cleaned. What such a consumer has not seen of a dropped partition is
-- counted here, and lost to it.
alter table switchboard.cursors add column missed bigint not null default 0;
comment on column switchboard.cursors.missed is
  'Events of dropped partitions that this consumer has not seen, because no release consumed them for that long.';

-- Consumers that no release binds any more: retired, or replaced by a release that consumes nothing. A canary or a shadow
-- consumes only what the running release does.
create function switchboard.consumers_gone() returns text[]
  language sql stable set search_path = pg_catalog, pg_temp as $$
    select array(
      select distinct c.consumer from switchboard.cursors c
      left join switchboard.running w on w.name = c.consumer
      left join switchboard.releases r using (name, digest)
      where case when w.name is not null then jsonb_typeof(r.manifest -> 'on' -> 'event') is distinct from 'object'
            else exists (select from switchboard.history h where h.name = c.consumer and h.action = 'retire') end)
  $$;
revoke all on function switchboard.consumers_gone from public;

create or replace function switchboard.drop_passed_outbox(days_kept int) returns int
  language plpgsql set search_path = pg_catalog, pg_temp set lock_timeout = '500ms' as $$
declare
  partition text;
  unpassed boolean;
  dropped int := 0;
  gone text[] := switchboard.consumers_gone();
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
         where c.consumer <> all ($1)
           and (c.high < p.last
                or exists (select from jsonb_array_elements(c.holes) as hole where (hole ->> 0)::bigint <= p.last)))',
      partition) into unpassed using gone;
    -- Later partitions hold later positions: nothing behind this one has been passed either.
    exit when unpassed;
    execute format(
      'update switchboard.cursors as c set missed = c.missed + m.events
       from (select c.consumer, c.shard, count(*) as events
             from switchboard.%I as o join switchboard.cursors as c using (shard)
             where c.consumer = any ($1) and o.position > c.high group by c.consumer, c.shard) as m
       where c.consumer = m.consumer and c.shard = m.shard', partition) using gone;
    execute format('drop table switchboard.%I', partition);
    dropped := dropped + 1;
  end loop;
  return dropped;
end $$;
revoke all on function switchboard.drop_passed_outbox from public;
