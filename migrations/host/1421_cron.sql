-- Schedules can follow a cron expression instead of a period.

alter table switchboard.schedules add column cron text;
comment on column switchboard.schedules.cron is
  'The expression and time zone for which `due_at` was computed; null for a period. If a release changes it, `due_at` is '
  'void.';
