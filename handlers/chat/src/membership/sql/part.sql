-- $1 conversation · $2 who · $3 now in milliseconds · $4 the first seq that they may not see
update app.participants set left_at = to_timestamp($3::bigint / 1000.0), left_seq = $4::bigint
where conversation_id = $1::uuid and user_id = $2 and left_at is null
