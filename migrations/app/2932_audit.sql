-- Who looked at a conversation without being in it, and why. Only ever appended to.
create table app.audits (
  -- UUIDv7 of the access.
  id uuid primary key,
  conversation_id uuid not null,
  by_user text not null,
  -- The token's session, so that an access can be laid at one sign-in.
  session_id text not null,
  reason text not null,
  -- Which page was asked for: its cursors, bound and filter.
  page json not null,
  at timestamptz not null default now()
);

create index audits_of_conversation on app.audits (conversation_id, id);

-- What `audit` may do: read everything, and note that it did. It can not take a note back.
select switchboard.ensure_role('audit');
grant usage on schema app to switchboard_audit;
grant select on app.conversations, app.users, app.messages, app.message_changes to switchboard_audit;
grant insert on app.audits to switchboard_audit;
