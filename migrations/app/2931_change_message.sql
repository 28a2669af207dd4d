-- What `change-message` may do.
select switchboard.ensure_role('change_message');
grant usage on schema app to switchboard_change_message;
grant select on app.conversations, app.participants, app.users, app.messages, app.message_changes
  to switchboard_change_message;
grant update (content, attachments, metadata, mentions, edited_at, deleted_at, change) on app.messages
  to switchboard_change_message;
grant insert on app.message_changes to switchboard_change_message;
grant insert on switchboard.outbox to switchboard_change_message;
