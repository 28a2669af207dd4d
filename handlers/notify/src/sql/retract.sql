-- Retracts notifications, softly and without their text: $1 ids · $2 now in milliseconds.
update app.notifications as notification set deleted_at = to_timestamp($2::bigint / 1000.0), body = null
where notification.id = any($1::uuid[]) and notification.deleted_at is null
returning notification.id, notification.user_id
