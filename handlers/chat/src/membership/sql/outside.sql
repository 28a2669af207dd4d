-- Whether somebody stands before a public channel without being in it: $1 conversation · $2 who. No row where there is no
-- such conversation.
select conversation.kind = 'channel' and conversation.visibility = 'public' and not exists (
  select from app.participants as participant
  where participant.conversation_id = conversation.id and participant.user_id = $2 and participant.left_at is null) as outside
from app.conversations as conversation
where conversation.id = $1::uuid and conversation.deleted_at is null
