-- Out of sight until a message beyond this: $1 conversation · $2 who · $3 the last seq
update app.participants set hidden_seq = $3::bigint
where conversation_id = $1::uuid and user_id = $2 and left_at is null
