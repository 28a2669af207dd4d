-- The head is far above the last message of a page.
insert into app.messages (id, conversation_id, seq, sender_id, type, content, created_at)
  values ('019aa117-0006-7000-8000-000000000007', '019b0000-0000-7000-8000-000000000001', 2000, 'bo', 'text', 'far',
    '2026-11-20 11:04Z');
