-- Messages of the day of the test: at 11:30, 11:40 and 11:50.

insert into app.messages (id, conversation_id, seq, sender_id, type, content, created_at) values
  ('01a1f8b8-72c0-7000-8000-000000000001', '019b0000-0000-7000-8000-000000000001', 4, 'ana', 'text', 'At eight?',
    '2026-11-20 11:30Z'),
  ('01a1f8c1-9a80-7000-8000-000000000002', '019b0000-0000-7000-8000-000000000002', 2, 'bo', 'text', 'Only us?',
    '2026-11-20 11:40Z'),
  ('01a1f8ca-c240-7000-8000-000000000003', '019b0000-0000-7000-8000-000000000001', 5, 'bo', 'text', 'At nine',
    '2026-11-20 11:50Z');
