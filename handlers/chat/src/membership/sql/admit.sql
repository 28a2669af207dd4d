-- Whoever comes, or comes back, starts anew: role, mark and mute are those of a newcomer, the mark is at the message that
-- says so. $1 conversation · $2 who · $3 role · $4 the seq of that message · $5 now in milliseconds · $6 by themself
insert into app.participants as participant (
  conversation_id, user_id, role, joined_at, last_read_seq, delivered_seq, engaged)
values ($1::uuid, $2::text, $3::text, to_timestamp($5::bigint / 1000.0), $4::bigint, $4, $6::boolean)
on conflict (conversation_id, user_id) do update set
  role = excluded.role,
  notifications = 'all',
  joined_at = excluded.joined_at,
  left_at = null,
  last_read_seq = excluded.last_read_seq,
  delivered_seq = excluded.delivered_seq,
  hidden_seq = null,
  engaged = excluded.engaged
returning app.participant_text(participant,
  (select app.profile_text(person) from app.users as person where person.id = participant.user_id)) as participant
