-- Who is told of something about a conversation, by id: $1 conversation · $2 after whom · $3 how many.
select participant.user_id
from app.participants as participant
where participant.conversation_id = $1::uuid and participant.left_at is null
  and participant.notifications <> 'none' and participant.user_id > $2
order by participant.user_id
limit $3::int
