-- The announcements of joins and leaves of large conversations: $1 conversations · $2 the events that ask for them
-- · $3 the milliseconds between two announcements of a conversation. One row for each event: the announcement as JSON, or
-- the milliseconds to wait, or neither where another event announces.
--
-- The statement that counts changes of several conversations locks their rows in this order, too.
with
asked as materialized (
  select * from unnest($1::uuid[], $2::uuid[]) with ordinality as asked(conversation_id, event_id, place)
),
counts as materialized (
  select counts.*, extract(epoch from announced_at + $3::int * interval '1 millisecond' - now()) * 1000 as rest_ms
  from app.member_changes as counts
  where counts.conversation_id in (select conversation_id from asked)
  order by counts.conversation_id
  for update
),
judged as materialized (
  select
    asked.event_id, asked.conversation_id,
    case
      -- It was announced, but the call did not end well.
      when counts.announced_by = asked.event_id then 'again'
      -- The last event of a conversation announces for all.
      when counts.event_id is null or asked.place < max(asked.place) over (partition by asked.conversation_id) then 'done'
      when counts.rest_ms > 0 then 'wait'
      else 'announce'
    end as verdict,
    -- A clock that went back must not make anybody wait for long.
    least(ceil(counts.rest_ms), $3)::int as rest_ms,
    counts.announced,
    json_build_object(
      'conversation_id', counts.conversation_id,
      'participants', counts.participants,
      'joined', json_build_object('count', counts.joined, 'people', counts.joined_people),
      'left', json_build_object('count', counts.departed, 'people', counts.departed_people))::text as announcement
  from asked
  join counts using (conversation_id)
),
announced as (
  update app.member_changes as counts
  set joined = 0, joined_people = '[]', departed = 0, departed_people = '[]', event_id = null, event_at = null,
    announced_by = judged.event_id, announced_at = now(), announced = judged.announcement
  from judged
  where judged.verdict = 'announce' and counts.conversation_id = judged.conversation_id
)
select
  event_id::text as event_id,
  case verdict when 'announce' then announcement when 'again' then announced end as announcement,
  case verdict when 'wait' then rest_ms end as wait_ms
from judged
