-- What lists are made of, and what the handler `lists` may do.

-- The last message as lists show it: compact JSON, as text.
create function app.preview_text(m app.messages) returns text
  language sql stable parallel safe
  return '{"id":"' || (m).id || '","seq":' || (m).seq || ',"sender_id":' || to_json((m).sender_id)
    || ',"type":"' || (m).type || '","content":'
    || to_json(case when (m).deleted_at is null then left((m).content, 100) else '' end)
    || ',"created_at":"' || app.rfc3339((m).created_at) || '"}';

select switchboard.ensure_role('lists');
grant usage on schema app to switchboard_lists;
grant select on app.conversations, app.participants, app.users, app.messages, app.message_changes to switchboard_lists;
