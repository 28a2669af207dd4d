-- What a person should know. Written from events, monthly by id.

create table app.notifications (
  -- Made from the event's id and the user, in the event's month: however often the event comes, there is one row.
  id uuid primary key,
  user_id text not null,
  type text not null,
  level text not null default 'info',
  title text not null,
  body text,
  -- What it is about, for instance `message` and its id.
  entity_type text,
  entity_id text,
  data json,
  read_at timestamptz,
  created_at timestamptz not null,
  deleted_at timestamptz,
  constraint notifications_level_known check (level in ('info', 'warning', 'alert'))
) partition by range (id);

create index notifications_of_user on app.notifications (user_id, id desc) where deleted_at is null;
create index notifications_unread on app.notifications (user_id, id desc)
  where deleted_at is null and read_at is null;
create table app.notifications_default partition of app.notifications default;

-- A notification as answers and pushes show it: compact JSON, as text.
create function app.notification_text(
  id uuid, user_id text, type text, level text, title text, body text, entity_type text, entity_id text, data json,
  read_at timestamptz, created_at timestamptz) returns text
  language sql stable parallel safe
  return '{"id":"' || id || '","user_id":' || to_json(user_id) || ',"type":' || to_json(type) || ',"level":"' || level
    || '","title":' || to_json(title) || ',"body":' || coalesce(to_json(body)::text, 'null')
    || ',"entity_type":' || coalesce(to_json(entity_type)::text, 'null')
    || ',"entity_id":' || coalesce(to_json(entity_id)::text, 'null')
    || ',"data":' || coalesce(data::text, 'null')
    || ',"read_at":' || coalesce('"' || app.rfc3339(read_at) || '"', 'null')
    || ',"created_at":"' || app.rfc3339(created_at) || '"}';

create function app.notification_text(n app.notifications) returns text
  language sql stable parallel safe
  return app.notification_text(
    (n).id, (n).user_id, (n).type, (n).level, (n).title, (n).body, (n).entity_type, (n).entity_id, (n).data,
    (n).read_at, (n).created_at);
