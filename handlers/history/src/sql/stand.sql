-- Where a conversation stands, for who is there: $1 conversation · $2 who asks · $3 where this month's ids begin.
select
  head.seq,
  coalesce((
    select change.change from app.message_changes as change
    where change.conversation_id = $1::uuid
    order by change.change desc limit 1), 0) as change,
  -- Seqs and changes are given out anew after a failover that lost some: pages of another epoch are other pages.
  (select present.ordinal from switchboard.epochs as present order by present.ordinal desc limit 1) as epoch
from app.participants as participant
join app.conversations as conversation
  on conversation.id = participant.conversation_id and conversation.deleted_at is null
cross join app.head($1, $3::uuid) as head
where participant.conversation_id = $1 and participant.user_id = $2 and participant.left_at is null
