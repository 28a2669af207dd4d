-- A conversation as one of its people sees it: $1 id · $2 who. A public channel is shown to others without its people.
-- What one wrote oneself counts as read up to there, as in lists.
select
  rtrim(app.conversation_text(conversation), '}')
    || ',"my_role":' || coalesce('"' || mine.role || '"', 'null')
    || ',"notifications":' || coalesce('"' || mine.notifications || '"', 'null')
    || ',"last_read_seq":' || coalesce((
      select since.through_seq from app.unread(conversation.id, $2, mine.last_read_seq) as since
      where mine.user_id is not null), 0)
    || ',"participants":' || case when mine.user_id is null then '[]' else coalesce((
      select '[' || string_agg(app.participant_text(participant, app.profile_text(person)), ','
        order by participant.joined_at, participant.user_id) || ']'
      from (
        select * from app.participants as participant
        where participant.conversation_id = conversation.id and participant.left_at is null
        order by participant.joined_at, participant.user_id
        limit 500) as participant
      left join app.users as person on person.id = participant.user_id), '[]') end
    || '}' as conversation
from app.conversations as conversation
left join app.participants as mine
  on mine.conversation_id = conversation.id and mine.user_id = $2 and mine.left_at is null
where conversation.id = $1::uuid and conversation.deleted_at is null
  and (mine.user_id is not null or (conversation.kind = 'channel' and conversation.visibility = 'public'))
