select kind = 'channel' and visibility = 'public' from app.conversations where id = $1::uuid and deleted_at is null
