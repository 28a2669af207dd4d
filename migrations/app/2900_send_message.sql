-- What `send-message` may do.
select switchboard.ensure_role('send_message');
grant usage on schema app to switchboard_send_message;
grant select on app.conversations, app.participants, app.users, app.messages, app.message_keys to switchboard_send_message;
grant insert on app.messages, app.message_keys to switchboard_send_message;
grant insert on switchboard.outbox to switchboard_send_message;
