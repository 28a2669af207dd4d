-- What the handlers of who is there, and of what is there to be joined, may do.

select switchboard.ensure_role('participants');
grant usage on schema app to switchboard_participants;
grant select on app.conversations, app.participants, app.users, app.messages to switchboard_participants;
grant insert, update on app.participants to switchboard_participants;
grant update (deleted_at) on app.conversations to switchboard_participants;
grant insert on app.messages, switchboard.outbox to switchboard_participants;

select switchboard.ensure_role('channels');
grant usage on schema app to switchboard_channels;
grant select on app.conversations, app.participants to switchboard_channels;
