-- What was last told of somebody's presence. Redis decides who is there; this is what remains when it is empty, and what
-- keeps what is told in order. Written when a status is told, and at no other time.

create table app.presence (
  -- Of anybody who ever connected.
  user_id text primary key,
  status text not null,
  -- The status before it.
  was text not null default 'offline',
  -- Rises with every status of this person: a writer with an older one comes too late.
  version bigint not null,
  -- Of who is offline: when the last connection went.
  last_seen timestamptz not null,
  constraint presence_status_known check (status in ('online', 'away', 'busy', 'offline'))
) with (fillfactor = 70);

-- Who is told to be there although Redis, which was lost, knows nothing of them.
create index presence_of_those_here on app.presence (user_id) where status <> 'offline';

grant select, insert, update on app.presence to switchboard_presence_sweep;

select switchboard.ensure_role('presence');
grant usage on schema app to switchboard_presence;
grant select, insert, update on app.presence to switchboard_presence;
grant select on app.conversations, app.participants to switchboard_presence;
grant insert on switchboard.outbox to switchboard_presence;

select switchboard.ensure_role('typing');
grant usage on schema app to switchboard_typing;
grant select on app.conversations, app.participants to switchboard_typing;
