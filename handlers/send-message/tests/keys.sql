-- The key `used` belongs to the message "first".
insert into app.messages (id, conversation_id, seq, sender_id, type, content, client_msg_id, created_at)
  values ('019aa117-0005-7000-8000-000000000006', '019b0000-0000-7000-8000-000000000001', 4, 'ana', 'text', 'first', 'used',
    '2026-11-20 11:03Z');
insert into app.message_keys (user_id, client_msg_id, fingerprint, message_id, created_at)
  values ('ana', 'used', 4289770781509501709, '019aa117-0005-7000-8000-000000000006', '2026-11-20 11:03Z');
