-- Where my conversations stand: $1 who · $2 how many at most, the newest · $3 where this month's ids begin.
-- Activity is the id of the last message, which is in the order of time.
select participant.conversation_id as id, coalesce(head.id, participant.conversation_id) as activity
from app.participants as participant
left join lateral app.head(participant.conversation_id, $3::uuid) as head on true
where participant.user_id = $1 and participant.left_at is null
order by activity desc
limit $2::int
