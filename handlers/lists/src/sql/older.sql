-- The newest of those that Redis does not keep: $1 who · $2 what it keeps · $3 after which activity · $4 how many ·
-- $5 where this month's ids begin.
select participant.conversation_id as id, head.activity
from app.participants as participant
left join lateral (
  select head.seq, coalesce(head.id, participant.conversation_id) as activity
  from app.head(participant.conversation_id, $5::uuid) as head) as head on true
where participant.user_id = $1 and participant.left_at is null and participant.conversation_id <> all ($2::uuid[])
  and (participant.hidden_seq is null or head.seq > participant.hidden_seq)
  and head.activity < $3::uuid
order by head.activity desc
limit $4::int
