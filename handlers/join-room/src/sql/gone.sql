-- Who left a conversation after a seq, by themselves or removed by another, and is not back: $1 conversation · $2 seq
-- · $3 the seq after which messages are searched for leaves that the participants do not record · $4 rows at most, the
-- last ones to leave
select gone.user_id
from (
  select participant.user_id, participant.left_seq
  from app.participants as participant
  where participant.conversation_id = $1::uuid and participant.left_seq > $2::bigint and participant.left_at is not null
  union all
  select distinct participant.user_id, 0
  from app.messages as message
  join app.participants as participant
    on participant.conversation_id = message.conversation_id
    and participant.user_id in (message.sender_id, message.metadata ->> 'user_id')
  where message.conversation_id = $1 and message.seq > $3::bigint and message.type = 'leave'
    and participant.left_at is not null and participant.left_seq is null) as gone
order by gone.left_seq desc, gone.user_id
limit $4::int
