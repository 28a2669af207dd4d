-- $1 conversation · $2 who · $3 role · $4 by whom · $5 id of the message · $6 id of the event · $7 where this month's ids
-- begin · $8 now in milliseconds. The conversation is locked by the statement before.
with
conversation as (
  select
    conversation.*,
    head.seq as head_seq,
    app.id_after(head.id, $5::uuid) as message_id,
    (select count(*) from app.participants as present
      where present.conversation_id = conversation.id and present.left_at is null) as present
  from app.conversations as conversation, app.head(conversation.id, $7::uuid) as head
  where conversation.id = $1::uuid and conversation.deleted_at is null
),
judged as (
  select
    conversation.*,
    case
      when standing.user_id is not null and ($2::text = $4::text or asker.user_id is not null) then 'already'
      when $2 = $4 and not (conversation.kind = 'channel' and conversation.visibility = 'public') then 'not_found'
      when $2 <> $4 and asker.user_id is null then 'not_found'
      when conversation.kind = 'class' then 'managed_by_class'
      when conversation.kind = 'direct' then 'direct'
      when $2 <> $4 and asker.role not in ('owner', 'admin') then 'forbidden'
      when $2 <> $4 and $3::text = 'admin' and asker.role <> 'owner' then 'owner_only'
      when conversation.archived_at is not null then 'archived'
      when conversation.present >= conversation.capacity then 'full'
      else 'admitted'
    end as verdict
  from conversation
  left join app.participants as standing
    on standing.conversation_id = conversation.id and standing.user_id = $2 and standing.left_at is null
  left join app.participants as asker
    on asker.conversation_id = conversation.id and asker.user_id = $4 and asker.left_at is null
),
-- Whoever comes back starts anew: role, mark and mute are those of a newcomer.
admitted as (
  insert into app.participants as participant (conversation_id, user_id, role, joined_at, last_read_seq, delivered_seq)
  select id, $2, $3, to_timestamp($8::bigint / 1000.0), head_seq + 1, head_seq + 1
  from judged
  where verdict = 'admitted'
  on conflict (conversation_id, user_id) do update set
    role = excluded.role,
    notifications = 'all',
    joined_at = excluded.joined_at,
    left_at = null,
    last_read_seq = excluded.last_read_seq,
    delivered_seq = excluded.delivered_seq,
    hidden_seq = null
  returning participant.*
),
said as (
  select
    judged.*,
    judged.head_seq + 1 as seq,
    case when $2 = $4 then 'joined' else 'added' end as content,
    json_build_object('user_id', $2, 'role', $3) as metadata,
    (select app.profile_text(person) from app.users as person where person.id = $4) as sender
  from judged
  where verdict = 'admitted'
),
stored as (
  insert into app.messages (id, conversation_id, seq, sender_id, type, content, metadata, created_at)
  select message_id, id, seq, $4, 'join', content, metadata, to_timestamp($8 / 1000.0) from said
),
announced as (
  insert into switchboard.outbox (shard, position, id, event_type, key, payload)
  select shard, switchboard.next_position(shard), event_id, event_type, key, payload
  from (
    select 1 as place, switchboard.shard('conv:' || id) as shard, 'conv:' || id as key, $6::uuid as event_id,
      'conversation.participant.joined' as event_type,
      json_build_object('conversation_id', id, 'user_id', $2, 'role', $3, 'by', $4) as payload
    from said
    union all
    select 2, switchboard.shard('conv:' || id), 'conv:' || id, message_id, 'message.created',
      ('{"conversation_id":"' || id || '","seq":' || seq || ',"message":'
        || app.message_text(message_id, id, seq, $4, sender, 'join', content, null, null, metadata, null, null,
             to_timestamp($8 / 1000.0), null, false, null) || '}')::json
    from said
    order by place) as ordered
)
select
  judged.verdict,
  switchboard.shard('conv:' || judged.id)::int as shard,
  coalesce(
    (select app.participant_text(admitted, app.profile_text(person))
      from admitted left join app.users as person on person.id = admitted.user_id),
    (select app.participant_text(standing, app.profile_text(person))
      from app.participants as standing left join app.users as person on person.id = standing.user_id
      where standing.conversation_id = judged.id and standing.user_id = $2 and judged.verdict = 'already'))
    as participant,
  case when judged.verdict in ('admitted', 'already') then
    (select app.conversation_text(conversation) from app.conversations as conversation where conversation.id = judged.id)
  end as conversation
from judged
