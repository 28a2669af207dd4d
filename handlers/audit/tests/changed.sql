-- Friday: ana's question was edited twice and then deleted; bo's answer was edited once. One conversation was
-- deleted.
update app.messages
  set content = '', edited_at = '2026-11-20 11:05Z', deleted_at = '2026-11-20 11:06Z', change = 3
  where id = '019aa117-0001-7000-8000-000000000002';
update app.messages
  set content = 'Me, and the road', mentions = '["ana"]', edited_at = '2026-11-20 11:07Z', change = 4
  where id = '019aa117-0002-7000-8000-000000000003';
insert into app.message_changes (id, conversation_id, change, message_id, seq, kind, by_user, at, original_content,
  original_attachments, original_metadata, original_mentions) values
  ('019aa117-1001-7000-8000-000000000001', '019b0000-0000-7000-8000-000000000001', 1,
    '019aa117-0001-7000-8000-000000000002', 2, 'edit', 'ana', '2026-11-20 11:04Z', 'Who comes?', null, null, null),
  ('019aa117-1002-7000-8000-000000000002', '019b0000-0000-7000-8000-000000000001', 2,
    '019aa117-0001-7000-8000-000000000002', 2, 'edit', 'ana', '2026-11-20 11:05Z', 'Who comes on Thursday?', null, null, null),
  ('019aa117-1003-7000-8000-000000000003', '019b0000-0000-7000-8000-000000000001', 3,
    '019aa117-0001-7000-8000-000000000002', 2, 'delete', 'bo', '2026-11-20 11:06Z', 'Who comes on Friday?',
    '[{"url":"https://files.example/map.png","name":"map.png","mime":"image/png","size":9}]', '{"k":1}', '["bo"]'),
  ('019aa117-1004-7000-8000-000000000004', '019b0000-0000-7000-8000-000000000001', 4,
    '019aa117-0002-7000-8000-000000000003', 3, 'edit', 'bo', '2026-11-20 11:07Z', 'Me, and con đường', null, null, null);

insert into app.conversations (id, kind, name, created_by, created_at, updated_at, deleted_at) values
  ('019b0000-0000-7000-8000-000000000007', 'group', 'Gone', 'ana', '2026-11-20 11:00Z', '2026-11-20 11:00Z',
    '2026-11-20 11:30Z');
insert into app.messages (id, conversation_id, seq, sender_id, type, content, created_at) values
  ('019aa117-0006-7000-8000-000000000007', '019b0000-0000-7000-8000-000000000007', 1, 'ana', 'text', 'nobody here',
    '2026-11-20 11:01Z');
