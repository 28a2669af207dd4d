-- cy has left Friday; the class was deleted.

update app.participants set left_at = '2026-11-20 11:45Z'
where conversation_id = '019b0000-0000-7000-8000-000000000001' and user_id = 'cy';
update app.conversations set deleted_at = '2026-11-20 11:45Z' where id = '019b0000-0000-7000-8000-000000000005';
