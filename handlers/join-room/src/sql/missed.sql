-- What follows a position, as frames: messages first, changes once there are no more of them.
-- $1 conversation · $2 after seq · $3 after change · $4 bytes at most · $5 rows at most
with
found as (
  (select 0 as track, message.seq as number,
    '{"type":"message.new","payload":{"conversation_id":"' || message.conversation_id || '","message":'
      || app.message_text(message, app.profile_text(sender)) || '}}' as frame
  from app.messages as message
  left join app.users as sender on sender.id = message.sender_id
  where message.conversation_id = $1::uuid and message.seq > $2::bigint
  order by message.seq
  limit $5::int)
  union all
  (select 1, change.change,
    case change.kind
      when 'delete' then
        '{"type":"message.deleted","payload":{"conversation_id":"' || change.conversation_id || '","message_id":"'
          || change.message_id || '","seq":' || change.seq || ',"change":' || change.change || '}}'
      else
        '{"type":"message.edited","payload":{"conversation_id":"' || change.conversation_id || '","message":'
          || app.message_text(message, app.profile_text(sender)) || ',"change":' || change.change || '}}'
    end
  from app.message_changes as change
  join app.messages as message on message.id = change.message_id
  left join app.users as sender on sender.id = message.sender_id
  where change.conversation_id = $1 and change.change > $3::bigint
  order by change.change
  limit $5)
),
measured as (
  select *,
    row_number() over (order by track, number) as nth,
    sum(octet_length(frame)) over (order by track, number) as bytes
  from found
)
select track::int as track, number, frame
from measured
where nth = 1 or (nth <= $5 and bytes <= $4::bigint)
order by track, number
