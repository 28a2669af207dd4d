-- $1 conversation · $2 who
update app.participants set hidden_seq = null where conversation_id = $1::uuid and user_id = $2
