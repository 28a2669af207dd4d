-- A message and who wants to change it: $1 conversation · $2 who · $3 message. No row for what is not theirs to see.
select
  participant.role, message.sender_id, message.type = 'text' as is_text,
  conversation.archived_at is not null as is_archived, message.deleted_at is not null as is_deleted,
  message.content, message.mentions::text as mentions, message.seq, message.change,
  app.message_text(message, app.profile_text(sender)) as message
from app.messages as message
join app.conversations as conversation
  on conversation.id = message.conversation_id and conversation.deleted_at is null
join app.participants as participant
  on participant.conversation_id = message.conversation_id and participant.user_id = $2 and participant.left_at is null
left join app.users as sender on sender.id = message.sender_id
where message.id = $3::uuid and message.conversation_id = $1::uuid
