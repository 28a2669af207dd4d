-- The users and conversations of the handlers' tests. The fixtures are from 2026-11-20 11:00; the clock of
-- each test begins at 12:00.

-- A scenario may have another `now`, for which the migrations made no partitions.
select app.ensure_partitions();

-- In other databases the name of the epoch is random.
update switchboard.epochs set epoch = '019b0000-0000-7000-8000-0000000000e0' where ordinal = 0;

insert into app.users (id, display_name, username, avatar_url, created_at, updated_at) values
  ('ana', 'Ana Lima', 'ana', 'https://img.example/ana.png', '2026-11-01 09:00Z', '2026-11-01 09:00Z'),
  ('bo', 'Bo', 'bo', null, '2026-11-01 09:00Z', '2026-11-01 09:00Z'),
  ('cy', 'Cy', 'cy', null, '2026-11-01 09:00Z', '2026-11-01 09:00Z');
-- dee is a participant who has never connected. eve is a participant of no conversation.

insert into app.conversations (id, kind, name, slug, description, visibility, capacity, direct_low, direct_high, created_by,
  created_at, updated_at, archived_at) values
  -- ana is the owner, bo an admin, cy a member, dee an observer
  ('019b0000-0000-7000-8000-000000000001', 'group', 'Friday', 'friday', null, 'private', null, null, null, 'ana',
    '2026-11-20 11:00Z', '2026-11-20 11:00Z', null),
  ('019b0000-0000-7000-8000-000000000002', 'direct', null, null, null, 'private', null, 'ana', 'bo', 'ana',
    '2026-11-20 11:00Z', '2026-11-20 11:00Z', null),
  -- public; ana is the owner
  ('019b0000-0000-7000-8000-000000000003', 'channel', 'Lobby', 'lobby', 'Come in', 'public', null, null, null, 'ana',
    '2026-11-20 11:00Z', '2026-11-20 11:00Z', null),
  -- public and full
  ('019b0000-0000-7000-8000-000000000004', 'channel', 'Full', 'full', null, 'public', 1, null, null, 'ana',
    '2026-11-20 11:00Z', '2026-11-20 11:00Z', null),
  -- the conversation of a class
  ('019b0000-0000-7000-8000-000000000005', 'class', 'CS101', null, null, 'private', null, null, null, 'ana',
    '2026-11-20 11:00Z', '2026-11-20 11:00Z', null),
  -- archived
  ('019b0000-0000-7000-8000-000000000006', 'group', 'Old', null, null, 'private', null, null, null, 'ana',
    '2026-11-20 11:00Z', '2026-11-20 11:00Z', '2026-11-20 11:30Z');

insert into app.participants (conversation_id, user_id, role, joined_at, last_read_seq, delivered_seq) values
  ('019b0000-0000-7000-8000-000000000001', 'ana', 'owner', '2026-11-20 11:00Z', 1, 1),
  ('019b0000-0000-7000-8000-000000000001', 'bo', 'admin', '2026-11-20 11:00Z', 3, 3),
  ('019b0000-0000-7000-8000-000000000001', 'cy', 'member', '2026-11-20 11:00Z', 1, 2),
  ('019b0000-0000-7000-8000-000000000001', 'dee', 'observer', '2026-11-20 11:00Z', 1, 1),
  ('019b0000-0000-7000-8000-000000000002', 'ana', 'member', '2026-11-20 11:00Z', 1, 1),
  ('019b0000-0000-7000-8000-000000000002', 'bo', 'member', '2026-11-20 11:00Z', 1, 1),
  ('019b0000-0000-7000-8000-000000000003', 'ana', 'owner', '2026-11-20 11:00Z', 1, 1),
  ('019b0000-0000-7000-8000-000000000004', 'ana', 'owner', '2026-11-20 11:00Z', 1, 1),
  ('019b0000-0000-7000-8000-000000000005', 'ana', 'owner', '2026-11-20 11:00Z', 1, 1),
  ('019b0000-0000-7000-8000-000000000006', 'ana', 'owner', '2026-11-20 11:00Z', 1, 1),
  ('019b0000-0000-7000-8000-000000000006', 'bo', 'member', '2026-11-20 11:00Z', 1, 1);

-- All participants joined by themselves.
update app.participants set engaged = true;

insert into app.messages (id, conversation_id, seq, sender_id, type, content, created_at) values
  ('019aa117-0000-7000-8000-000000000001', '019b0000-0000-7000-8000-000000000001', 1, 'ana', 'system', 'Group created',
    '2026-11-20 11:00Z'),
  ('019aa117-0001-7000-8000-000000000002', '019b0000-0000-7000-8000-000000000001', 2, 'ana', 'text', 'Who comes on Friday?',
    '2026-11-20 11:01Z'),
  ('019aa117-0002-7000-8000-000000000003', '019b0000-0000-7000-8000-000000000001', 3, 'bo', 'text', 'Me, and con đường',
    '2026-11-20 11:02Z'),
  ('019aa117-0003-7000-8000-000000000004', '019b0000-0000-7000-8000-000000000002', 1, 'ana', 'system',
    'Conversation started', '2026-11-20 11:00Z'),
  ('019aa117-0004-7000-8000-000000000005', '019b0000-0000-7000-8000-000000000003', 1, 'ana', 'system', 'Channel created',
    '2026-11-20 11:00Z');
