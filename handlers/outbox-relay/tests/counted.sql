-- 130 people joined the Lobby, one left, and an event waits to announce it. It follows `chat.sql`.
insert into app.member_changes (
  conversation_id, participants, joined, joined_people, departed, departed_people, event_id, event_at)
values (
  '019b0000-0000-7000-8000-000000000003', 230, 130, '[{"user_id": "eve", "role": "member", "by": "eve"}]',
  1, '[{"user_id": "bo", "role": "member", "by": "ana"}]', '00000000-0000-7000-8000-0000000000e1', '2026-11-20 12:00Z');
