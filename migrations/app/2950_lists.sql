-- What lists are made of, and what the handler `lists` may do.

-- The last message as lists show it: compact JSON, as text.
create function app.preview_text(m app.messages) returns text
  language sql stable parallel safe
  return '{"id":"' || (m).id || '","seq":' || (m).seq || ',"sender_id":' || to_json((m).sender_id)
    || ',"type":"' || (m).type || '","content":'
    || to_json(case when (m).deleted_at is null then left((m).content, 100) else '' end)
    || ',"created_at":"' || app.rfc3339((m).created_at) || '"}';

-- What a person whose mark is `mark` has read through, their own texts included, and how many texts of others come after
-- it. One walk back from the head; who is further behind than 10,000 messages is told of so many.
create or replace function app.unread(conversation uuid, reader text, mark bigint)
  returns table (through_seq bigint, unread bigint)
  language sql stable parallel safe
  as $$
    select
      coalesce(max(after.own), mark),
      count(*) filter (
        where after.seq > coalesce(after.own, mark) and after.type = 'text' and after.sender_id <> reader
          and after.deleted_at is null)
    from (
      select newest.*, max(newest.seq) filter (where newest.sender_id = reader and newest.type = 'text') over () as own
      from (
        select message.seq, message.sender_id, message.type, message.deleted_at
        from app.messages as message
        where message.conversation_id = conversation and message.seq > mark
        order by message.seq desc
        limit 10000) as newest) as after
  $$;

select switchboard.ensure_role('lists');
grant usage on schema app to switchboard_lists;
grant select on app.conversations, app.participants, app.users, app.messages, app.message_changes to switchboard_lists;
