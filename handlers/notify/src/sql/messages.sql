-- Notifications of messages: `new_message` for who is not looking, `mention` instead of it for who is mentioned.
-- $1 the messages, JSON · $2 who looks, JSON · $3 the largest conversation that is told of everything · $4 characters of
-- a message that a notification repeats
--
-- The text is the message's as it is now, not as the event has it: the event may come late, or again, after an edit.
--
-- It also finds the senders who have unread notifications of earlier messages of the conversation, because a sender has
-- read those. A row without a notification names the event of such a sender.
with
sent as materialized (
  select *
  from json_to_recordset($1::json) as sent(
    event_id uuid, position bigint, conversation_id uuid, message_id uuid, seq bigint, sender_id text, title text,
    content text, mentions text[], names text[], at_ms bigint)
),
told as materialized (
  select sent.*, coalesce(left(message.content, $4::int), sent.content) as body
  from sent
  left join lateral (
    select message.content, message.deleted_at from app.messages as message
    where message.id = sent.message_id
    limit 1) as message on true
  where message.deleted_at is null
),
looking as (
  select distinct conversation_id, user_id
  from json_to_recordset($2::json) as looking(conversation_id uuid, user_id text)
),
sizes as (
  select conversation_id, (
    select count(*) from (
      select from app.participants as participant
      where participant.conversation_id = asked.conversation_id and participant.left_at is null
      limit $3::int + 1) as counted) as size
  from (select distinct conversation_id from told) as asked
),
-- By id, or by name: a probe for each, never a scan of the directory.
mentioned as (
  select told.event_id, mention as user_id from told, unnest(told.mentions) as mention
  union
  select told.event_id, (
    select person.id from app.users as person
    where person.username is not null and lower(person.username) = lower(name))
  from told, unnest(told.names) as name
),
-- Everyone; in a large conversation only those who are mentioned are looked up at all. `offset 0` keeps each a probe of the
-- index: the planner, who knows nothing of JSON, would rather read the table.
reached as (
  select told.event_id, participant.*
  from told
  join sizes on sizes.conversation_id = told.conversation_id and sizes.size <= $3
  cross join lateral (
    select participant.user_id, participant.notifications, participant.last_read_seq
    from app.participants as participant
    where participant.conversation_id = told.conversation_id and participant.left_at is null
    offset 0) as participant
  union
  select told.event_id, participant.*
  from mentioned
  join told using (event_id)
  cross join lateral (
    select participant.user_id, participant.notifications, participant.last_read_seq
    from app.participants as participant
    where participant.conversation_id = told.conversation_id and participant.user_id = mentioned.user_id
      and participant.left_at is null
    offset 0) as participant
),
named as materialized (
  select
    app.notification_id(told.event_id, told.position, reached.user_id) as id, reached.user_id,
    case when mentioned.user_id is null then 'new_message' else 'mention' end as type,
    -- A mention is kept although the person has read the message already, and counts as read then.
    case when reached.last_read_seq >= told.seq then to_timestamp(told.at_ms / 1000.0) end as read_at,
    told.*
  from reached
  join told using (event_id)
  left join mentioned on mentioned.event_id = reached.event_id and mentioned.user_id = reached.user_id
  left join looking on looking.conversation_id = told.conversation_id and looking.user_id = reached.user_id
  where reached.user_id <> told.sender_id
    and case when mentioned.user_id is not null then reached.notifications <> 'none'
      -- Not what they see, nor what they have read, nor what was said before they came: their mark began at the head.
      else reached.notifications = 'all' and looking.user_id is null and reached.last_read_seq < told.seq end
),
stored as (
  insert into app.notifications (id, user_id, type, title, body, entity_type, entity_id, data, read_at, created_at)
  select
    id, user_id, type, title, body, 'message', message_id::text,
    json_build_object('conversation_id', conversation_id, 'seq', seq, 'sender_id', sender_id), read_at,
    to_timestamp(at_ms / 1000.0)
  from named
  order by id
  on conflict (id) do nothing
  returning id
)
select event_id, user_id, notification
from (
  -- Also what was stored before, as long as it is news: whether it was pushed then, nobody knows.
  select event_id, user_id, app.notification_text(id, user_id, type, 'info', title, body, 'message', message_id::text,
    json_build_object('conversation_id', conversation_id, 'seq', seq, 'sender_id', sender_id), read_at,
    to_timestamp(at_ms / 1000.0)) as notification, conversation_id, seq
  from named
  where id in (select id from stored)
    or coalesce((select known.read_at is null and known.deleted_at is null
      from app.notifications as known where known.id = named.id), true)
  union all
  select sent.event_id, sent.sender_id, null, sent.conversation_id, sent.seq
  from sent
  left join lateral (
    select true as found from app.notifications as notification
    where notification.user_id = sent.sender_id
      and notification.data ->> 'conversation_id' = sent.conversation_id::text
      and notification.read_at is null and notification.deleted_at is null
      and notification.type in ('new_message', 'mention')
      and case when notification.type in ('new_message', 'mention') then (notification.data ->> 'seq')::bigint end
        <= sent.seq
    limit 1) as unread on true
  where unread.found
    -- Those that this very statement makes are not visible to it.
    or exists (
      select from named
      where named.user_id = sent.sender_id and named.conversation_id = sent.conversation_id and named.seq <= sent.seq)
) as found
order by conversation_id, seq
