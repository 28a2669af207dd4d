-- What a key of this user stands for, and the message as it is now, for who is still there: $1 who · $2 the key
select
  key.fingerprint,
  case when exists (
    select from app.participants as participant
    join app.conversations as conversation on conversation.id = participant.conversation_id
    where participant.conversation_id = message.conversation_id and participant.user_id = $1
      and participant.left_at is null and conversation.deleted_at is null)
  then app.message_text(message, app.profile_text(sender)) end as message
from app.message_keys as key
join app.messages as message on message.id = key.message_id
left join app.users as sender on sender.id = message.sender_id
where key.user_id = $1 and key.client_msg_id = $2
