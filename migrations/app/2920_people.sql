-- What the handlers about people may do: the directory at connecting, notifications from events.

select switchboard.ensure_role('presence_sweep');
grant usage on schema app to switchboard_presence_sweep;
grant select, insert, update on app.users to switchboard_presence_sweep;
-- It reads back the shards, to wake their consumers.
grant insert, select (shard) on switchboard.outbox to switchboard_presence_sweep;

select switchboard.ensure_role('notify');
grant usage on schema app to switchboard_notify;
grant select on app.conversations, app.participants, app.users to switchboard_notify;
grant select, insert on app.notifications to switchboard_notify;
