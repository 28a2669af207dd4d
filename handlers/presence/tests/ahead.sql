-- The last announced status of ana, from a clock that was a minute ahead.

insert into app.presence (user_id, status, was, version, last_seen) values
  ('ana', 'online', 'offline', 1795176060000, '2026-11-20 12:01Z');
