-- All conversations that ana and bo shared were deleted.

update app.conversations set deleted_at = '2026-11-20 11:45Z' where id in (
  '019b0000-0000-7000-8000-000000000001', '019b0000-0000-7000-8000-000000000002', '019b0000-0000-7000-8000-000000000006');
