-- A class as one of its members sees it: $1 id · $2 who
select rtrim(app.class_text(class), '}') || ',"my_role":"' || mine.role || '"}' as class
from app.classes as class
join app.class_members as mine on mine.class_id = class.id and mine.user_id = $2 and mine.left_at is null
where class.id = $1::uuid and class.deleted_at is null
