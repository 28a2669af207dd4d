-- Whether a person knows another conversation by this slug: a public channel, or one that they are in. What they cannot see
-- does not count, so the answer tells them nothing new. $1 slug · $2 the person · $3 the conversation that is to have it
select exists (
  select from app.conversations as conversation
  where conversation.slug = $1 and conversation.deleted_at is null and conversation.id is distinct from $3::uuid
    and ((conversation.kind = 'channel' and conversation.visibility = 'public')
      or exists (
        select from app.participants as participant
        where participant.conversation_id = conversation.id and participant.user_id = $2
          and participant.left_at is null))) as taken
