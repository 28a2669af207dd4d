-- Who left a conversation after a seq, by themselves or removed by another, and is not back: $1 conversation · $2 seq.
select distinct participant.user_id
from app.messages as message
join app.participants as participant
  on participant.conversation_id = message.conversation_id
  and participant.user_id in (message.sender_id, message.metadata ->> 'user_id')
where message.conversation_id = $1::uuid and message.seq > $2::bigint and message.type = 'leave'
  and participant.left_at is not null
