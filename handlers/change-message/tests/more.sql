-- Friday: dee, who is an observer now, sent a message; ana mentioned bo; bo deleted his message; gil has
-- left. Old, which is archived, and the direct conversation: bo sent a message in each. Gone was deleted.
insert into app.conversations (id, kind, name, created_by, created_at, updated_at, deleted_at) values
  ('019b0000-0000-7000-8000-000000000007', 'group', 'Gone', 'ana', '2026-11-20 11:00Z', '2026-11-20 11:00Z',
    '2026-11-20 11:30Z');
insert into app.participants (conversation_id, user_id, role, joined_at, left_at) values
  ('019b0000-0000-7000-8000-000000000007', 'ana', 'owner', '2026-11-20 11:00Z', null),
  ('019b0000-0000-7000-8000-000000000001', 'gil', 'member', '2026-11-20 11:00Z', '2026-11-20 11:30Z');
insert into app.messages (id, conversation_id, seq, sender_id, type, content, attachments, metadata, mentions, created_at,
  deleted_at, change) values
  ('019aa117-0010-7000-8000-000000000014', '019b0000-0000-7000-8000-000000000001', 4, 'dee', 'text', 'I, too', null, null, null,
    '2026-11-20 11:03Z', null, null),
  ('019aa117-0011-7000-8000-000000000015', '019b0000-0000-7000-8000-000000000001', 5, 'ana', 'text', 'and bo?',
    '[{"url":"https://files.example/map.png","name":"map.png","mime":"image/png","size":9}]', '{"k":1}', '["bo"]',
    '2026-11-20 11:04Z', null, null),
  ('019aa117-0012-7000-8000-000000000016', '019b0000-0000-7000-8000-000000000001', 6, 'bo', 'text', '', null, null, null,
    '2026-11-20 11:05Z', '2026-11-20 11:06Z', 1),
  ('019aa117-0015-7000-8000-000000000019', '019b0000-0000-7000-8000-000000000001', 7, 'gil', 'text', 'bye', null, null, null,
    '2026-11-20 11:07Z', null, null),
  ('019aa117-0013-7000-8000-000000000017', '019b0000-0000-7000-8000-000000000006', 1, 'bo', 'text', 'once', null, null, null,
    '2026-11-20 11:03Z', null, null),
  ('019aa117-0016-7000-8000-00000000001a', '019b0000-0000-7000-8000-000000000002', 2, 'bo', 'text', 'hello', null, null,
    null, '2026-11-20 11:03Z', null, null),
  ('019aa117-0014-7000-8000-000000000018', '019b0000-0000-7000-8000-000000000007', 1, 'ana', 'text', 'nobody here', null, null, null,
    '2026-11-20 11:03Z', null, null);
insert into app.message_changes (id, conversation_id, change, message_id, seq, kind, by_user, at, original_content) values
  ('019aa117-1001-7000-8000-000000000001', '019b0000-0000-7000-8000-000000000001', 1, '019aa117-0012-7000-8000-000000000016',
    6, 'delete', 'bo', '2026-11-20 11:06Z', 'oops');
