-- Notifications of the mentions that edits add: $1 the edits, JSON · $2 characters of a message that a notification repeats.
-- A person who was mentioned before the edit, or has a notification of a mention in this message already, gets none.
with
told as materialized (
  select told.*, left(message.content, $2::int) as body
  from json_to_recordset($1::json) as told(
    event_id uuid, position bigint, conversation_id uuid, message_id uuid, seq bigint, sender_id text, title text,
    mentions text[], names text[], mentions_before text[], names_before text[], at_ms bigint)
  cross join lateral (
    select message.content from app.messages as message
    where message.id = told.message_id and message.deleted_at is null
    limit 1) as message
),
mentioned as (
  select told.event_id, mention as user_id from told, unnest(told.mentions) as mention
  union
  select told.event_id, (
    select person.id from app.users as person
    where person.username is not null and lower(person.username) = lower(name))
  from told, unnest(told.names) as name
),
before as (
  select told.event_id, mention as user_id from told, unnest(told.mentions_before) as mention
  union
  select told.event_id, (
    select person.id from app.users as person
    where person.username is not null and lower(person.username) = lower(name))
  from told, unnest(told.names_before) as name
),
added as (
  select event_id, user_id from mentioned where user_id is not null
  except
  select event_id, user_id from before
),
-- The events that can have made a notification of the message: its creation and its edits.
made as (
  select told.event_id, told.message_id, told.message_id as made_by from told
  union
  select told.event_id, told.message_id, change.id
  from told
  cross join lateral (
    select change.id from app.message_changes as change
    where change.message_id = told.message_id and change.kind = 'edit'
    offset 0) as change
),
known as materialized (
  select made.event_id, notification.id, notification.user_id
  from made
  -- By the ids alone, as in `outdated.sql`.
  cross join lateral (
    select notification.* from app.notifications as notification
    where notification.id >= app.notification_low(made.made_by) and notification.id <= app.notification_high(made.made_by)
    offset 0) as notification
  where notification.type = 'mention' and notification.entity_id = made.message_id::text
),
named as materialized (
  select app.notification_id(told.event_id, told.position, added.user_id) as id, added.user_id, told.*
  from added
  join told using (event_id)
  cross join lateral (
    select participant.notifications from app.participants as participant
    where participant.conversation_id = told.conversation_id and participant.user_id = added.user_id
      and participant.left_at is null
    offset 0) as participant
  where added.user_id <> told.sender_id and participant.notifications <> 'none'
    and not exists (
      select from known
      where known.event_id = told.event_id and known.user_id = added.user_id
        and known.id <> app.notification_id(told.event_id, told.position, added.user_id))
),
stored as (
  insert into app.notifications (id, user_id, type, title, body, entity_type, entity_id, data, created_at)
  select
    id, user_id, 'mention', title, body, 'message', message_id::text,
    json_build_object('conversation_id', conversation_id, 'seq', seq, 'sender_id', sender_id),
    to_timestamp(at_ms / 1000.0)
  from named
  order by id
  on conflict (id) do nothing
  returning id
)
-- Also what was stored before, as long as it is news: whether it was pushed then, nobody knows.
select user_id, app.notification_text(id, user_id, 'mention', 'info', title, body, 'message', message_id::text,
  json_build_object('conversation_id', conversation_id, 'seq', seq, 'sender_id', sender_id), null,
  to_timestamp(at_ms / 1000.0)) as notification
from named
where id in (select id from stored)
  or coalesce((select known.read_at is null and known.deleted_at is null
    from app.notifications as known where known.id = named.id), true)
order by conversation_id, seq
