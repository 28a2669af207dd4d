update app.messages set content = 'Who comes on Monday, @carla?', mentions = '["bo", "dee"]', edited_at = '2026-11-20 11:59Z',
  change = 1
where id = '019aa117-0001-7000-8000-000000000002';
insert into app.message_changes (
  id, conversation_id, change, message_id, seq, kind, by_user, at, original_content, original_mentions)
values ('019aa14c-8aa0-7000-8000-0000000000c1', '019b0000-0000-7000-8000-000000000001', 1,
  '019aa117-0001-7000-8000-000000000002', 2, 'edit', 'ana', '2026-11-20 11:59Z', 'Who comes on Friday?', '["bo"]');
