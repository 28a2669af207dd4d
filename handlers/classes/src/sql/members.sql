-- Who is in it, by id: $1 class · $2 who asks · $3 after whom · $4 how many, one more than the page has.
-- No row at all for who is not in it.
select member.user_id, member.text
from app.class_members as mine
join app.classes as class on class.id = mine.class_id and class.deleted_at is null
left join lateral (
  select member.user_id, app.class_member_text(member, app.profile_text(person)) as text
  from app.class_members as member
  left join app.users as person on person.id = member.user_id
  where member.class_id = mine.class_id and member.left_at is null and member.user_id > $3
  order by member.user_id
  limit $4::int) as member on true
where mine.class_id = $1::uuid and mine.user_id = $2 and mine.left_at is null
order by member.user_id
