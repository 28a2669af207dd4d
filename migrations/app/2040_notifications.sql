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

create function app.notification_json(n app.notifications) returns json
  language sql stable parallel safe
  return json_build_object(
    'id', (n).id,
    'user_id', (n).user_id,
    'type', (n).type,
    'level', (n).level,
    'title', (n).title,
    'body', (n).body,
    'entity_type', (n).entity_type,
    'entity_id', (n).entity_id,
    'data', (n).data,
    'read_at', app.rfc3339((n).read_at),
    'created_at', app.rfc3339((n).created_at));
