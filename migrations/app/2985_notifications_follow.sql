-- Notifications follow their messages: a deleted message retracts its notifications, an edit replaces their text, somebody
-- who leaves a conversation loses those of it, and somebody who reads a conversation has read them.

-- The notifications of one person about one conversation; with `read_at` those that are unread.
create index notifications_of_conversation on app.notifications (user_id, (data ->> 'conversation_id'), read_at)
  where deleted_at is null and type in ('new_message', 'mention');

-- The notifications that one event can have made have ids in this range (`app.notification_id`), so those of a message are
-- found by the primary key, without an index of their own.
create function app.notification_low(event_id uuid) returns uuid
  language sql immutable parallel safe
  return (left(event_id::text, 14) || '7000-8000-000000000000')::uuid;
create function app.notification_high(event_id uuid) returns uuid
  language sql immutable parallel safe
  return (left(event_id::text, 14) || '7fff-8fff-ffffffffffff')::uuid;

grant select on app.messages, app.message_changes to switchboard_notify;
grant update (read_at, deleted_at, body) on app.notifications to switchboard_notify;
grant insert on switchboard.outbox to switchboard_notify;

-- What was written before this rule: first the notifications of messages that were edited or deleted, then those of people who
-- are no longer in the conversation. Each is looked up by an index; only the changes of messages are read as a whole.
create temporary table followed (id uuid, user_id text) on commit drop;

with event as (
  select distinct change.message_id as event_id, change.message_id from app.message_changes as change
  union
  select change.id, change.message_id from app.message_changes as change where change.kind = 'edit'
),
found as (
  select notification.id, message.deleted_at, left(message.content, 200) as body
  from event
  join app.messages as message on message.id = event.message_id
  -- By the ids alone, so that the planner takes the primary key.
  cross join lateral (
    select notification.* from app.notifications as notification
    where notification.id >= app.notification_low(event.event_id)
      and notification.id <= app.notification_high(event.event_id)
    offset 0) as notification
  where notification.deleted_at is null and notification.type in ('new_message', 'mention')
    and notification.entity_id = event.message_id::text
),
changed as (
  update app.notifications as notification set
    deleted_at = found.deleted_at,
    body = case when found.deleted_at is null then found.body end
  from found
  where notification.id = found.id
  returning notification.id, notification.user_id
)
insert into followed select id, user_id from changed;

with changed as (
  update app.notifications as notification set deleted_at = now(), body = null
  from app.participants as participant
  where participant.left_at is not null
    and notification.user_id = participant.user_id
    and notification.data ->> 'conversation_id' = participant.conversation_id::text
    and notification.deleted_at is null and notification.type in ('new_message', 'mention')
  returning notification.id, notification.user_id
)
insert into followed select id, user_id from changed;

-- One event for each of these people, so that what is cached of them is dropped.
insert into switchboard.outbox (shard, position, id, event_type, key, payload)
select shard, switchboard.next_position(shard), app.uuid_at(clock_timestamp()), 'published', key,
  ('{"target":' || to_json(key) || ',"type":"notification.' || case when is_gone then 'read' else 'updated' end
    || '","payload":{' || members || ',"unread":' || app.unread_notifications(user_id) || '}}')::json
from (
  select distinct on (followed.user_id)
    followed.user_id, 'user:' || followed.user_id as key, switchboard.shard('user:' || followed.user_id) as shard,
    notification.deleted_at is not null as is_gone,
    case when notification.deleted_at is null then '"notification":' || app.notification_text(notification)
      else '"id":"' || notification.id || '","deleted":true' end as members
  from followed
  join app.notifications as notification on notification.id = followed.id
  order by followed.user_id, followed.id desc) as person;
