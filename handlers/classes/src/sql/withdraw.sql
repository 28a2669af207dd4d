-- $1 class · $2 who · $3 now in milliseconds
update app.class_members set left_at = to_timestamp($3::bigint / 1000.0)
where class_id = $1::uuid and user_id = $2 and left_at is null
