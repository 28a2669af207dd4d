-- When a message reached its people and when they read it: $1 conversation · $2 who asks · $3 seq · $4 after whom,
-- or null · $5 how many people. Always one row: whether they may see such a message, and the answer.
--
-- A message was read with the first rise of the mark that passed over it, or when the person wrote something themself at
-- or after it, whichever was first. A mark that was set further by leaving and coming back passed over nothing.
with
message as (
  select message.sender_id
  from app.participants as participant
  join app.conversations as conversation
    on conversation.id = participant.conversation_id and conversation.deleted_at is null
  join app.messages as message on message.conversation_id = participant.conversation_id and message.seq = $3::bigint
  where participant.conversation_id = $1::uuid and participant.user_id = $2 and participant.left_at is null
),
people as (
  select participant.user_id, participant.left_at, participant.delivered_seq, participant.last_read_seq
  from message
  join app.participants as participant
    on participant.conversation_id = $1 and participant.user_id <> message.sender_id
    and participant.user_id > coalesce($4::text, '')
  order by participant.user_id
  limit $5::int + 1
),
page as (
  select * from people order by user_id limit $5
),
-- What people wrote themselves, first at or after the message; looked for in the next 10,000 messages.
own as (
  select distinct on (next.sender_id) next.sender_id, next.seq, next.created_at
  from app.messages as next
  where next.conversation_id = $1 and next.seq >= $3 and next.seq < $3 + 10000 and next.type = 'text'
    and exists (select from message)
  order by next.sender_id, next.seq
),
marked as (
  select
    page.user_id, page.left_at,
    case when read.from_seq < $3 then read.at end as read_at,
    case when delivered.from_seq < $3 then delivered.at end as delivered_at,
    -- Own words count as long as no mark has passed the message, and not beyond where it was passed over.
    case when own.seq <= case
      when read.up_to_seq is null then case when page.last_read_seq >= $3 then page.last_read_seq else own.seq end
      when read.from_seq < $3 then read.up_to_seq
      else read.from_seq end
    then own.created_at end as wrote_at
  from page
  left join own on own.sender_id = page.user_id
  left join lateral (
    select mark.from_seq, mark.up_to_seq, mark.at from app.marks as mark
    where mark.conversation_id = $1 and mark.user_id = page.user_id and mark.kind = 'read' and mark.up_to_seq >= $3
    order by mark.up_to_seq limit 1) as read on true
  left join lateral (
    select mark.from_seq, mark.at from app.marks as mark
    where mark.conversation_id = $1 and mark.user_id = page.user_id and mark.kind = 'delivered' and mark.up_to_seq >= $3
    order by mark.up_to_seq limit 1) as delivered on true
),
receipts as (
  select user_id, left_at, least(read_at, wrote_at) as read_at, least(delivered_at, read_at, wrote_at) as delivered_at
  from marked
)
select
  exists (select from message) as known,
  '{"receipts":' || coalesce((
    select '[' || string_agg(
      '{"user_id":' || to_json(user_id)
        || ',"delivered_at":' || coalesce('"' || app.rfc3339(delivered_at) || '"', 'null')
        || ',"read_at":' || coalesce('"' || app.rfc3339(read_at) || '"', 'null') || '}',
      ',' order by user_id) || ']'
    from receipts
    -- Who has left is of interest where the message had reached them.
    where left_at is null or delivered_at is not null), '[]')
    || ',"next_cursor":'
    -- As `sdk::cursor` has it.
    || coalesce((select to_json('p' || encode(convert_to(max(page.user_id), 'UTF8'), 'hex'))::text from page
         where (select count(*) from people) > (select count(*) from page)), 'null')
    || '}' as answer
