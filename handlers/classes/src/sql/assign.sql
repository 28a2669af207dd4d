-- $1 class · $2 who · $3 role
update app.class_members set role = $3::text where class_id = $1::uuid and user_id = $2 and left_at is null
