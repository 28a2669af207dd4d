-- The announcement was made, but the relay died before it was published. It follows `counted.sql`.
update app.member_changes set
  joined = 0, joined_people = '[]', departed = 0, departed_people = '[]', event_id = null, event_at = null,
  announced_by = '00000000-0000-7000-8000-0000000000e1', announced_at = '2026-11-20 11:59:59.7Z',
  announced = '{"conversation_id": "019b0000-0000-7000-8000-000000000003", "participants": 230, "joined": {"count": 130, "people": []}, "left": {"count": 1, "people": []}}';
