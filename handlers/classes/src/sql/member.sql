-- $1 class · $2 who
select app.class_member_text(member, app.profile_text(person)) as member
from app.class_members as member
left join app.users as person on person.id = member.user_id
where member.class_id = $1::uuid and member.user_id = $2 and member.left_at is null
