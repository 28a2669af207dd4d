-- A person's notifications, newest first, and how many are unread: $1 who · $2 the cursor, an id, or null · $3 how many.
select
  app.unread_notifications($1) as unread,
  coalesce((
    select '[' || string_agg(app.notification_text(page), ',' order by page.id desc) || ']'
    from (
      select * from app.notifications as notification
      where notification.user_id = $1 and notification.deleted_at is null
        and notification.id < coalesce($2::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
      order by notification.id desc
      limit $3::int) as page), '[]') as notifications
