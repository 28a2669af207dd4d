-- ana has four notifications: two unread, one read, one deleted. bo has one, eve has none.

insert into app.notifications (id, user_id, type, level, title, body, entity_type, entity_id, data, read_at, created_at,
  deleted_at) values
  ('01a1f89c-fb81-7000-8000-000000000001', 'ana', 'new_message', 'info', 'Bo', 'Me, and con đường', 'message',
    '019aa117-0002-7000-8000-000000000003', '{"seq":3}', '2026-11-20 11:30Z', '2026-11-20 11:00:00.001Z', null),
  ('01a1f89c-fb82-7000-8000-000000000002', 'ana', 'mention', 'info', 'Bo', '@ana?', 'message',
    '019aa117-0002-7000-8000-000000000003', null, null, '2026-11-20 11:00:00.002Z', null),
  ('01a1f89c-fb83-7000-8000-000000000003', 'ana', 'system', 'warning', 'Maintenance', null, null, null, null, null,
    '2026-11-20 11:00:00.003Z', null),
  ('01a1f89c-fb84-7000-8000-000000000004', 'ana', 'match', 'alert', 'Round 1', null, 'match', '31', null, null,
    '2026-11-20 11:00:00.004Z', '2026-11-20 11:30Z'),
  ('01a1f89c-fb85-7000-8000-000000000005', 'bo', 'system', 'info', 'Maintenance', null, null, null, null, null,
    '2026-11-20 11:00:00.005Z', null);
