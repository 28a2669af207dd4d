-- What the handlers of notifications share, and what they may do.

-- The id of a person's notification of an event: the same however often the event comes, because it is made of both. The
-- event's time first, so that it lies in the event's month; then the event's place in its shard, so that events of one
-- millisecond keep their order; then a digest.
create function app.notification_id(event_id uuid, place bigint, user_id text) returns uuid
  language sql immutable parallel safe
  return (left(event_id::text, 14) || '7' || lpad(to_hex(place & 4095), 3, '0') || '-8'
    || substr(md5(event_id || ':' || user_id), 1, 3) || '-' || substr(md5(event_id || ':' || user_id), 4, 12))::uuid;

-- A list of one type does not walk over all others.
create index notifications_of_type on app.notifications (user_id, type, id desc) where deleted_at is null;

-- Derived, so that it cannot drift. Who has more than this many is shown this many.
create function app.unread_notifications(who text) returns bigint
  language sql stable parallel safe
  return (select count(*) from (
    select from app.notifications where user_id = who and deleted_at is null and read_at is null limit 10000) as counted);

select switchboard.ensure_role('notifications');
grant usage on schema app to switchboard_notifications;
grant select, update (read_at, deleted_at) on app.notifications to switchboard_notifications;
grant insert on switchboard.outbox to switchboard_notifications;
