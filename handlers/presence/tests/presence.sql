-- The last announced statuses: bo is online, cy is offline.

insert into app.presence (user_id, status, was, version, last_seen) values
  ('bo', 'online', 'offline', 1795175940000, '2026-11-20 11:59Z'),
  ('cy', 'offline', 'online', 1795174200000, '2026-11-20 11:30Z');
