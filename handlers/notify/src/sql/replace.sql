-- Replaces the text of notifications: $1 ids · $2 the text.
update app.notifications as notification set body = $2::text
where notification.id = any($1::uuid[]) and notification.deleted_at is null
returning notification.user_id, app.notification_text(notification) as notification
