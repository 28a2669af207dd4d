-- Conversations by their slugs, as one person means them: $1 slugs · $2 the person. A conversation that they are in comes
-- before a public channel that they are not in; of several that they are in, the one that they joined first counts.
select distinct on (conversation.slug) conversation.slug, conversation.id
from app.conversations as conversation
left join app.participants as participant
  on participant.conversation_id = conversation.id and participant.user_id = $2 and participant.left_at is null
where conversation.slug = any($1::text[]) and conversation.deleted_at is null
  and (participant.user_id is not null or (conversation.kind = 'channel' and conversation.visibility = 'public'))
order by conversation.slug, participant.joined_at nulls last, conversation.id
