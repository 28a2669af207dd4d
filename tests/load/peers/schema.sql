-- The store of a peer: only what a stored send needs. Rows of `conversations` leave room for the next version
-- of `seq` on the same page, so that an update changes no index. One index finds a message by its place.
create schema chat;

create table chat.conversations (
  id uuid primary key,
  seq bigint not null default 0
) with (fillfactor = 20);

create table chat.members (
  conversation_id uuid not null references chat.conversations (id),
  user_id text not null,
  primary key (conversation_id, user_id)
);

create table chat.messages (
  conversation_id uuid not null,
  seq bigint not null,
  id uuid not null,
  sender_id text not null,
  content text not null,
  created_at timestamptz not null,
  primary key (conversation_id, seq)
);
