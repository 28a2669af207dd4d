-- cy left while the conversation was large, so no message reports it. It follows `chat.sql`.
update app.participants set left_at = '2026-11-20 11:30Z', left_seq = 4
where conversation_id = '019b0000-0000-7000-8000-000000000001' and user_id = 'cy';
