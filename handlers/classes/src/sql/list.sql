-- Mine, the newest first: $1 who · $2 the last one of the page before · $3 how many, one more than the page has
select class.id::text as cursor, rtrim(app.class_text(class), '}') || ',"my_role":"' || mine.role || '"}' as text
from app.class_members as mine
join app.classes as class on class.id = mine.class_id and class.deleted_at is null
where mine.user_id = $1 and mine.left_at is null
  and mine.class_id < coalesce($2::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
order by mine.class_id desc
limit $3::int
