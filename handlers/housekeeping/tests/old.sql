-- Notifications, messages and edits of January 2024. The conversation has no later message.
select app.ensure_month(parent, '2024-01-01') from unnest(array['notifications', 'messages', 'message_changes']) as parent;
insert into app.notifications (id, user_id, type, title, created_at) values
  (app.uuid_at('2024-01-10 12:00Z'), 'ana', 'system', 'long ago', '2024-01-10 12:00Z'),
  (app.uuid_at(now()), 'ana', 'system', 'now', now());
insert into app.conversations (id, kind, name, created_by)
  values ('019b0000-0000-7000-8000-000000000001', 'group', 'Friday', 'ana');
insert into app.messages (id, conversation_id, seq, sender_id, type, content, created_at) values
  (app.uuid_at('2024-01-10 12:00Z'), '019b0000-0000-7000-8000-000000000001', 1, 'ana', 'text', 'first',
    '2024-01-10 12:00Z'),
  (app.uuid_at('2024-01-10 12:01Z'), '019b0000-0000-7000-8000-000000000001', 2, 'ana', 'text', 'last',
    '2024-01-10 12:01Z');
