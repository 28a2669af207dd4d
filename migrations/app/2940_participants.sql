-- What the handlers of who is there, and of what is there to be joined, may do.

select switchboard.ensure_role('participants');
grant usage on schema app to switchboard_participants;
grant select on app.conversations, app.participants, app.users, app.messages to switchboard_participants;
grant insert, update on app.participants to switchboard_participants;
grant update (deleted_at) on app.conversations to switchboard_participants;
grant insert on app.messages, switchboard.outbox to switchboard_participants;

-- Whether who left is there again.
select switchboard.ensure_role('outbox_relay');
grant usage on schema app to switchboard_outbox_relay;
grant select (conversation_id, user_id, left_at) on app.participants to switchboard_outbox_relay;

select switchboard.ensure_role('channels');
grant usage on schema app to switchboard_channels;
grant select on app.conversations, app.participants to switchboard_channels;
