-- One page: $1 conversation · $2 who asks · $3 before · $4 after · $5 type or null · $6 limit · $7 bytes.
-- The messages, and whether there are more. No row for who is not there.
with
seat as (
  select participant.conversation_id
  from app.participants as participant
  join app.conversations as conversation on conversation.id = participant.conversation_id
  where participant.conversation_id = $1::uuid and participant.user_id = $2 and participant.left_at is null
    and conversation.deleted_at is null
),
found as (
  select message.seq, app.message_text(message, app.profile_text(sender)) as text
  from (
    -- By itself, so that the limit ends the walk along the index.
    select message.* from app.messages as message
    where message.conversation_id = $1::uuid
      and message.seq < $3::bigint and message.seq > coalesce($4::bigint, 0)
      and message.type = coalesce($5::text, message.type) {beside_texts}
      and exists (select from seat)
    order by message.seq {direction}
    limit $6::int + 1) as message
  left join app.users as sender on sender.id = message.sender_id
),
measured as (
  select *,
    row_number() over (order by seq {direction}) as nth,
    sum(octet_length(text) + 1) over (order by seq {direction}) as bytes
  from found
),
kept as (
  select * from measured where nth = 1 or (nth <= $6 and bytes <= $7::bigint)
)
select
  coalesce((select '[' || string_agg(text, ',' order by seq) || ']' from kept), '[]') as messages,
  (select count(*) from found) > (select count(*) from kept) as has_more
from seat
