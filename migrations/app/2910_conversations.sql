-- What the handlers of conversations may do: create, list and change, admit and subscribe, read.

select switchboard.ensure_role('conversations');
grant usage on schema app to switchboard_conversations;
grant select on app.conversations, app.participants, app.users, app.messages to switchboard_conversations;
grant insert on app.conversations, app.participants, app.messages to switchboard_conversations;
grant update (name, slug, description, settings, capacity, visibility, updated_at) on app.conversations
  to switchboard_conversations;
grant update (hidden_seq) on app.participants to switchboard_conversations;
grant insert on switchboard.outbox to switchboard_conversations;

select switchboard.ensure_role('join_room');
grant usage on schema app to switchboard_join_room;
grant select on app.conversations, app.participants, app.users, app.messages, app.message_changes
  to switchboard_join_room;
grant insert on app.participants, app.messages to switchboard_join_room;
grant update on app.participants to switchboard_join_room;
grant insert on switchboard.outbox to switchboard_join_room;

select switchboard.ensure_role('history');
grant usage on schema app to switchboard_history;
grant select on app.conversations, app.participants, app.users, app.messages, app.message_changes
  to switchboard_history;
