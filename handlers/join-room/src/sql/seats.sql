-- Which of these conversations a user may see, and where they stand now: $1 who · $2 ids · $3 where this month's ids begin.
select
  asked.id,
  participant.user_id is not null as seated,
  coalesce(conversation.kind = 'channel' and conversation.visibility = 'public', false) as open,
  head.seq,
  coalesce((
    select change.change from app.message_changes as change
    where change.conversation_id = asked.id and participant.user_id is not null
    order by change.change desc limit 1), 0) as change
from unnest($2::uuid[]) as asked(id)
left join app.conversations as conversation on conversation.id = asked.id and conversation.deleted_at is null
left join app.participants as participant
  on participant.conversation_id = conversation.id and participant.user_id = $1 and participant.left_at is null
left join lateral
  app.head(case when participant.user_id is not null then asked.id end, $3::uuid) as head on true
