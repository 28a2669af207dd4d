-- $1 conversation · $2 now in milliseconds. Its slug is free again.
update app.conversations set deleted_at = to_timestamp($2::bigint / 1000.0) where id = $1::uuid
