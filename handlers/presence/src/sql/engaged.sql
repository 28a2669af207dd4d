-- Which of these people are engaged in which conversation: $1 conversations · $2 a person for each.
select participant.conversation_id, participant.user_id
from unnest($1::uuid[], $2::text[]) as asked(conversation_id, user_id)
cross join lateral (
  select participant.conversation_id, participant.user_id from app.participants as participant
  where participant.conversation_id = asked.conversation_id and participant.user_id = asked.user_id
    and participant.left_at is null and participant.engaged
  offset 0) as participant
