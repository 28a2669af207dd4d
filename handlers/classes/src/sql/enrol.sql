-- Whoever comes, or comes back, with this role: $1 class · $2 who · $3 role · $4 now in milliseconds
insert into app.class_members as member (class_id, user_id, role, joined_at)
values ($1::uuid, $2::text, $3::text, to_timestamp($4::bigint / 1000.0))
on conflict (class_id, user_id) do update set role = excluded.role, joined_at = excluded.joined_at, left_at = null
returning app.class_member_text(member,
  (select app.profile_text(person) from app.users as person where person.id = member.user_id)) as member
