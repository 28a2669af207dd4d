-- Who of those that left is there again: $1 conversations · $2 users.
select participant.conversation_id, participant.user_id
from unnest($1::uuid[], $2::text[]) as gone(conversation_id, user_id)
join app.participants as participant using (conversation_id, user_id)
where participant.left_at is null
