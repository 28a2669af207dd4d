-- cy has left Friday, and was in the class, which was deleted.

update app.participants set left_at = '2026-11-20 11:25Z'
where conversation_id = '019b0000-0000-7000-8000-000000000001' and user_id = 'cy';
insert into app.participants (conversation_id, user_id, role, joined_at, last_read_seq, delivered_seq) values
  ('019b0000-0000-7000-8000-000000000005', 'cy', 'member', '2026-11-20 11:00Z', 0, 0);
insert into app.messages (id, conversation_id, seq, sender_id, type, content, created_at) values
  ('01a1f8c1-9a80-7000-8000-000000000004', '019b0000-0000-7000-8000-000000000005', 1, 'ana', 'text', 'Tomorrow at nine',
    '2026-11-20 11:40Z');
update app.conversations set deleted_at = '2026-11-20 11:45Z' where id = '019b0000-0000-7000-8000-000000000005';
