-- This month's partition of notifications does not exist, so its rows are in DEFAULT.
do $$ begin
  execute format('drop table app.%I', 'notifications_' || to_char(now() at time zone 'UTC', 'YYYY_MM'));
end $$;
insert into app.notifications (id, user_id, type, title, created_at) values
  (app.uuid_at(now()), 'ana', 'system', 'one', now()),
  (app.uuid_at(now()), 'bo', 'system', 'two', now());
