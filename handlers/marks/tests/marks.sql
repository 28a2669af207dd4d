-- Friday: bo has read up to 3 at once, and cy later up to 2. dee joined again, so the mark skipped all
-- messages. gil left after he had read everything; hal left before any message reached him. bo's last
-- message, 4, is deleted. Old, which is archived: bo has not read ana's message yet. Gone was deleted.
insert into app.conversations (id, kind, name, created_by, created_at, updated_at, deleted_at) values
  ('019b0000-0000-7000-8000-000000000007', 'group', 'Gone', 'ana', '2026-11-20 11:00Z', '2026-11-20 11:00Z',
    '2026-11-20 11:30Z');
insert into app.participants (conversation_id, user_id, role, joined_at, left_at, last_read_seq, delivered_seq) values
  ('019b0000-0000-7000-8000-000000000007', 'ana', 'owner', '2026-11-20 11:00Z', null, 0, 0),
  ('019b0000-0000-7000-8000-000000000001', 'gil', 'member', '2026-11-20 11:00Z', '2026-11-20 11:30Z', 3, 3),
  ('019b0000-0000-7000-8000-000000000001', 'hal', 'member', '2026-11-20 11:00Z', '2026-11-20 11:01Z', 1, 1);
update app.participants set last_read_seq = 2, delivered_seq = 3
  where conversation_id = '019b0000-0000-7000-8000-000000000001' and user_id = 'cy';
update app.participants set last_read_seq = 3, delivered_seq = 3
  where conversation_id = '019b0000-0000-7000-8000-000000000001' and user_id = 'dee';
insert into app.messages (id, conversation_id, seq, sender_id, type, content, created_at, deleted_at, change) values
  ('019aa117-0012-7000-8000-000000000016', '019b0000-0000-7000-8000-000000000001', 4, 'bo', 'text', '',
    '2026-11-20 11:05Z', '2026-11-20 11:06Z', 1),
  ('019aa117-0013-7000-8000-000000000017', '019b0000-0000-7000-8000-000000000006', 2, 'ana', 'text', 'once',
    '2026-11-20 11:05Z', null, null);
insert into app.marks (conversation_id, user_id, kind, from_seq, up_to_seq, at) values
  ('019b0000-0000-7000-8000-000000000001', 'ana', 'delivered', 1, 3, '2026-11-20 11:02:01Z'),
  ('019b0000-0000-7000-8000-000000000001', 'ana', 'read', 1, 3, '2026-11-20 11:02:09Z'),
  ('019b0000-0000-7000-8000-000000000001', 'bo', 'delivered', 1, 3, '2026-11-20 11:03Z'),
  ('019b0000-0000-7000-8000-000000000001', 'bo', 'read', 1, 3, '2026-11-20 11:03:05Z'),
  ('019b0000-0000-7000-8000-000000000001', 'cy', 'delivered', 1, 3, '2026-11-20 11:04Z'),
  ('019b0000-0000-7000-8000-000000000001', 'cy', 'read', 1, 2, '2026-11-20 11:04:05Z'),
  ('019b0000-0000-7000-8000-000000000001', 'gil', 'read', 2, 3, '2026-11-20 11:06Z');
