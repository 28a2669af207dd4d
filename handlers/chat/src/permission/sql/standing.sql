-- What a person is in a conversation: $1 conversation · $2 who.
select participant.role, conversation.archived_at is not null as archived
from app.participants as participant
join app.conversations as conversation on conversation.id = participant.conversation_id and conversation.deleted_at is null
where participant.conversation_id = $1::uuid and participant.user_id = $2 and participant.left_at is null
