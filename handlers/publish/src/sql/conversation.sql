-- Whether there is such a conversation.
select exists (select from app.conversations where id = $1::uuid and deleted_at is null) as exists
