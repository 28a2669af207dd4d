-- A class as it stands under the lock of its conversation: $1 id · $2 who asks · $3 whom it is about
select
  class.name, class.code, class.description,
  class.archived_at is not null as archived,
  asker.role as asker,
  subject.role as subject,
  (select teacher.user_id from app.class_members as teacher
    where teacher.class_id = class.id and teacher.left_at is null and teacher.role = 'teacher' and teacher.user_id <> $3
    order by teacher.joined_at, teacher.user_id limit 1) as heir
from app.classes as class
left join app.class_members as asker
  on asker.class_id = class.id and asker.user_id = $2 and asker.left_at is null
left join app.class_members as subject
  on subject.class_id = class.id and subject.user_id = $3 and subject.left_at is null
where class.id = $1::uuid and class.deleted_at is null
