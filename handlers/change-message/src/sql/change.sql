-- Edit or delete a message, keep what stood there, tell of it: $1 conversation · $2 who · $3 message · $4 `edit` or
-- `delete` · $5 content · $6 mentions · $7 whether those that are there stay · $8 id of the change and its event · $9 now in
-- milliseconds. The conversation is locked by a statement before, so changes are numbered without gaps and doubles.
with
next as materialized (
  select
    to_timestamp($9::bigint / 1000.0) as at,
    switchboard.current_epoch() as epoch,
    coalesce((
      select change.change from app.message_changes as change
      where change.conversation_id = $1::uuid
      order by change.change desc limit 1), 0) + 1 as change
),
kept as (
  insert into app.message_changes (
    id, conversation_id, change, message_id, seq, kind, by_user, at, original_content, original_attachments,
    original_metadata, original_mentions, epoch)
  select
    $8::uuid, message.conversation_id, next.change, message.id, message.seq, $4::text, $2::text, next.at, message.content,
    message.attachments, message.metadata, message.mentions, next.epoch
  from app.messages as message, next
  where message.id = $3::uuid
),
changed as (
  update app.messages as message
  set
    content = $5::text,
    mentions = case when $7::boolean then message.mentions else $6::json end,
    attachments = case when $4 = 'edit' then message.attachments end,
    metadata = case when $4 = 'edit' then message.metadata end,
    edited_at = case when $4 = 'edit' then next.at else message.edited_at end,
    deleted_at = case when $4 = 'delete' then next.at end,
    change = next.change
  from next
  where message.id = $3
  returning message.*
),
written as (
  select changed.seq, changed.change, next.epoch, 'conv:' || changed.conversation_id as key,
    app.message_text(changed, app.profile_text(sender)) as message
  from changed cross join next
  left join app.users as sender on sender.id = changed.sender_id
),
announced as (
  insert into switchboard.outbox (shard, position, id, event_type, key, payload)
  select shard, switchboard.next_position(shard), $8, 'message.' || case $4 when 'edit' then 'edited' else 'deleted' end, key,
    case $4
      when 'edit' then
        ('{"conversation_id":"' || $1 || '","seq":' || seq || ',"change":' || change
          || case when epoch > 0 then ',"epoch":' || epoch else '' end || ',"message":' || message || '}')::json
      else
        ('{"conversation_id":"' || $1 || '","message_id":"' || $3 || '","seq":' || seq || ',"change":' || change
          || case when epoch > 0 then ',"epoch":' || epoch else '' end || '}')::json
    end
  from (select written.*, switchboard.shard(written.key) as shard from written) as told
)
select seq, change, message, switchboard.shard(key)::int as shard from written
