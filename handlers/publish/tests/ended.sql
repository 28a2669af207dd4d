-- A deleted conversation.
insert into app.conversations (id, kind, name, created_by, deleted_at)
  values ('019b0000-0000-7000-8000-000000000007', 'group', 'Gone', 'ana', '2026-11-20 11:30Z');
