-- Somebody came or went: the message that says so, and the events. The move is told first: whoever goes is unsubscribed
-- before their leave is published.
-- $1 conversation · $2 who · $3 role · $4 by whom · $5 `join` or `leave` · $6 what the message says · $7 its seq
-- $8 id of the message before it · $9 id of the message · $10 id of the event · $11 now in milliseconds
with
said as materialized (
  select
    $1::uuid as conversation_id,
    app.id_after($8::uuid, $9::uuid) as id,
    $7::bigint as seq,
    switchboard.current_epoch() as epoch,
    $4::text as sender_id,
    $5::text as type,
    $6::text as content,
    json_build_object('user_id', $2::text, 'role', $3::text) as metadata,
    to_timestamp($11::bigint / 1000.0) as at,
    'conv:' || $1::uuid as key,
    (select app.profile_text(person) from app.users as person where person.id = $4) as sender
),
stored as (
  insert into app.messages (id, conversation_id, seq, sender_id, type, content, metadata, created_at, epoch)
  select id, conversation_id, seq, sender_id, type, content, metadata, at, epoch from said
),
announced as (
  insert into switchboard.outbox (shard, position, id, event_type, key, payload)
  select shard, switchboard.next_position(shard), event_id, event_type, key, payload
  from (
    select 1 as place, switchboard.shard(key) as shard, key, $10::uuid as event_id,
      case type when 'join' then 'conversation.participant.joined' else 'conversation.participant.left' end as event_type,
      json_build_object('conversation_id', conversation_id, 'user_id', $2, 'role', $3, 'by', sender_id) as payload
    from said
    union all
    select 2, switchboard.shard(key), key, id, 'message.created',
      ('{"conversation_id":"' || conversation_id || '","seq":' || seq
        || case when epoch > 0 then ',"epoch":' || epoch else '' end || ',"message":'
        || app.message_text(id, conversation_id, seq, sender_id, sender, type, content, null, null, metadata, null, null,
             at, null, false, null) || '}')::json
    from said
    order by place) as ordered
)
select id from said
