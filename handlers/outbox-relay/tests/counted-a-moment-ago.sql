-- The last announcement was 300 ms ago. It follows `counted.sql`.
update app.member_changes set
  announced_by = '00000000-0000-7000-8000-0000000000e0', announced_at = '2026-11-20 11:59:59.7Z', announced = '{}';
