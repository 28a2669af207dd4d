-- $1 conversation · $2 who · $3 role
update app.participants set role = $3::text where conversation_id = $1::uuid and user_id = $2 and left_at is null
