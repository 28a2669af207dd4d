-- Notifications for whoever is told of these messages: one column of the arrays is one message.
-- $1 event ids · $2 conversations · $3 message ids · $4 seqs · $5 senders · $6 titles · $7 bodies · $8 mentions (JSON)
-- $9 times in milliseconds · $10 who looks, as `conversation user` · $11 the largest conversation that is told of everything
with
told as (
  select * from unnest(
    $1::uuid[], $2::uuid[], $3::text[], $4::bigint[], $5::text[], $6::text[], $7::text[], $8::text[], $9::bigint[])
    as told(event_id, conversation_id, message_id, seq, sender_id, title, body, mentions, at_ms)
),
sizes as (
  select conversation_id, (
    select count(*) from (
      select from app.participants as participant
      where participant.conversation_id = asked.conversation_id and participant.left_at is null
      limit $11::int + 1) as counted) as size
  from (select distinct conversation_id from told) as asked
),
people as (
  select
    told.*, participant.user_id,
    told.mentions::jsonb ? participant.user_id as mentioned
  from told
  join sizes using (conversation_id)
  join app.participants as participant
    on participant.conversation_id = told.conversation_id and participant.left_at is null
    and participant.user_id <> told.sender_id
    and participant.notifications <> 'none'
    -- Not what they have read, nor what was said before they came: the mark of a newcomer is at the head.
    and participant.last_read_seq < told.seq
    -- In a large conversation only those who are mentioned are looked up at all.
    and (sizes.size <= $11 or participant.user_id in (select jsonb_array_elements_text(told.mentions::jsonb)))
  where (told.conversation_id || ' ' || participant.user_id) <> all ($10::text[])
),
named as (
  select
    -- The event's time and a digest of event and person: the same again, however often the event comes.
    (left(event_id::text, 14) || '7' || substr(digest, 1, 3) || '-8' || substr(digest, 4, 3) || '-' || substr(digest, 7, 12))::uuid
      as id,
    people.*
  from (
    select people.*, md5(event_id || ':' || user_id) as digest
    from people
    join app.participants as mute using (conversation_id, user_id)
    where mentioned or mute.notifications = 'all') as people
),
stored as (
  insert into app.notifications (id, user_id, type, title, body, entity_type, entity_id, data, created_at)
  select
    id, user_id, case when mentioned then 'mention' else 'new_message' end, title, body, 'message', message_id,
    json_build_object('conversation_id', conversation_id, 'seq', seq, 'sender_id', sender_id),
    to_timestamp(at_ms / 1000.0)
  from named
  order by id
  on conflict (id) do nothing
)
-- Also what was stored before: whether it was pushed then, nobody knows.
select user_id, app.notification_text(id, user_id,
  case when mentioned then 'mention' else 'new_message' end, 'info', title, body, 'message', message_id,
  json_build_object('conversation_id', conversation_id, 'seq', seq, 'sender_id', sender_id), null,
  to_timestamp(at_ms / 1000.0)) as notification
from named
order by conversation_id, seq
