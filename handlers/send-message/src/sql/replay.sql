-- What a key of this user stands for, and the message as it is now.
select key.fingerprint, app.message_text(message, app.profile_text(sender)) as message
from app.message_keys as key
join app.messages as message on message.id = key.message_id
left join app.users as sender on sender.id = message.sender_id
where key.user_id = $1 and key.client_msg_id = $2
