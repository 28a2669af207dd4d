-- The Lobby is large: 101 participants. It follows `chat.sql`.
insert into app.participants (conversation_id, user_id, role, joined_at, last_read_seq, delivered_seq, engaged)
select '019b0000-0000-7000-8000-000000000003', 'm' || number, 'member', '2026-11-20 11:00Z', 1, 1, true
from generate_series(1, 100) as number;
