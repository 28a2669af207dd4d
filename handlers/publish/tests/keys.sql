-- Yesterday `scores` published the state of a match with the key `match-31-1`. Another key is older than a
-- week.
insert into app.publish_keys (publisher, key, fingerprint, event_id, created_at) values
  ('scores', 'match-31-1', 6439795709387895943, '019aa117-2001-7000-8000-000000000001', now() - interval '1 day'),
  ('scores', 'match-30-9', 7, '019aa117-2000-7000-8000-000000000000', now() - interval '8 days');
