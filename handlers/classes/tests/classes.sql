-- CS101: ana and bo are teachers, and ana owns the conversation; cy is a student, dee an observer. CS102 is
-- archived.
insert into app.classes (id, conversation_id, name, code, description, created_by, created_at, updated_at, archived_at) values
  ('019b0000-0000-7000-8000-0000000000c1', '019b0000-0000-7000-8000-000000000005', 'Algorithms', 'CS101', null, 'ana', '2026-11-20 11:00Z', '2026-11-20 11:00Z', null),
  ('019b0000-0000-7000-8000-0000000000c2', '019b0000-0000-7000-8000-000000000006', 'Last year', 'CS102', null, 'ana', '2026-11-20 11:00Z', '2026-11-20 11:00Z', '2026-11-20 11:30Z');
insert into app.class_members (class_id, user_id, role, joined_at) values
  ('019b0000-0000-7000-8000-0000000000c1', 'ana', 'teacher', '2026-11-20 11:00Z'), ('019b0000-0000-7000-8000-0000000000c1', 'bo', 'teacher', '2026-11-20 11:01Z'),
  ('019b0000-0000-7000-8000-0000000000c1', 'cy', 'student', '2026-11-20 11:02Z'), ('019b0000-0000-7000-8000-0000000000c1', 'dee', 'observer', '2026-11-20 11:03Z'),
  ('019b0000-0000-7000-8000-0000000000c2', 'ana', 'teacher', '2026-11-20 11:00Z'), ('019b0000-0000-7000-8000-0000000000c2', 'bo', 'student', '2026-11-20 11:00Z');
insert into app.participants (conversation_id, user_id, role, joined_at) values
  ('019b0000-0000-7000-8000-000000000005', 'bo', 'admin', '2026-11-20 11:01Z'), ('019b0000-0000-7000-8000-000000000005', 'cy', 'member', '2026-11-20 11:02Z'),
  ('019b0000-0000-7000-8000-000000000005', 'dee', 'observer', '2026-11-20 11:03Z');
