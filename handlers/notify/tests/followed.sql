-- All participants were notified of `Who comes on Friday?` (seq 2, by ana).
insert into app.notifications (id, user_id, type, title, body, entity_type, entity_id, data, created_at)
select
  app.notification_id('019aa117-0001-7000-8000-000000000002', 2, person), person, 'new_message', 'Ana Lima',
  'Who comes on Friday?', 'message', '019aa117-0001-7000-8000-000000000002',
  json_build_object('conversation_id', '019b0000-0000-7000-8000-000000000001', 'seq', 2, 'sender_id', 'ana'),
  '2026-11-20 11:01Z'
from unnest(array['bo', 'cy', 'dee']) as person;
