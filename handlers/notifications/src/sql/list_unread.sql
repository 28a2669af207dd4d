-- The same of what is unread; of one type, where $4 names it.
select
  app.unread_notifications($1) as unread,
  coalesce((
    select '[' || string_agg(app.notification_text(page), ',' order by page.id desc) || ']'
    from (
      select * from app.notifications as notification
      where notification.user_id = $1 and notification.deleted_at is null and notification.read_at is null
        and ($4::text is null or notification.type = $4)
        and notification.id < coalesce($2::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
      order by notification.id desc
      limit $3::int) as page), '[]') as notifications
