-- cy was announced as offline at 11:35.

insert into app.presence (user_id, status, was, version, last_seen) values
  ('cy', 'offline', 'online', 1795174500000, '2026-11-20 11:35Z');
