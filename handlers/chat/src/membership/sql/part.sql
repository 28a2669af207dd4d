-- $1 conversation · $2 who · $3 now in milliseconds
update app.participants set left_at = to_timestamp($3::bigint / 1000.0)
where conversation_id = $1::uuid and user_id = $2 and left_at is null
