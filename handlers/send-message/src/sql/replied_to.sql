-- Whether a participant replies to something that is no message of the conversation. Who is no participant learns nothing.
select
  not exists (select from app.messages as m where m.id = $1 and m.conversation_id = $2)
  and exists (
    select from app.participants as p
    where p.conversation_id = $2 and p.user_id = $3 and p.left_at is null) as unknown
