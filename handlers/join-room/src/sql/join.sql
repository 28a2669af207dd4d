-- Many users join public channels at once. The statement before locked the channels, so what this one's snapshot sees of
-- them is complete. A conversation of up to `{large_above}` people gets a message and an event for each join; a larger one
-- counts them (`app.members_changed`). The first call of a user counts; a second one finds the user there.
with
asked as materialized (
  select *
  from unnest($1::int[], $2::text[], $3::uuid[], $4::text[], $5::uuid[], $6::uuid[], $7::uuid[], $8::bigint[])
    as asked(n, key, conversation_id, user_id, message_id, event_id, changes_id, at_ms)
),
present as materialized (
  select switchboard.current_epoch() as epoch
),
rooms as materialized (
  select
    named.conversation_id,
    conversation.kind = 'channel' and conversation.visibility = 'public' as open,
    conversation.archived_at is not null as archived,
    coalesce(conversation.capacity, {participants_max}) as capacity,
    there.people,
    head.seq as head_seq,
    head.id as head_id
  from (select distinct conversation_id from asked) as named
  cross join lateral (
    select kind, visibility, archived_at, capacity from app.conversations as c
    where c.id = named.conversation_id and c.deleted_at is null
    limit 1) as conversation
  cross join lateral (
    select count(*) as people from (
      select from app.participants as p
      where p.conversation_id = named.conversation_id and p.left_at is null
      limit coalesce(conversation.capacity, {participants_max})) as counted) as there
  cross join lateral app.head(
    named.conversation_id,
    app.uuid_floor(date_trunc('month', now() at time zone 'UTC') at time zone 'UTC')) as head
),
standing as materialized (
  select
    asked.*, rooms.open, rooms.archived, rooms.capacity, rooms.people, rooms.head_seq, rooms.head_id,
    participant.found is not null as seated,
    row_number() over (partition by asked.conversation_id, asked.user_id order by asked.n) as call_of_user
  from asked
  left join rooms using (conversation_id)
  left join lateral (
    select true as found from app.participants as p
    where p.conversation_id = asked.conversation_id and p.user_id = asked.user_id and p.left_at is null
    limit 1) as participant on true
),
-- An empty channel has no owner, so the first user who joins it becomes the owner.
admitted as materialized (
  select *, people + place - 1 as before, case when people + place = 1 then 'owner' else 'member' end as role
  from (
    select *, row_number() over (partition by conversation_id order by n) as place
    from standing
    where open and not archived and not seated and call_of_user = 1) as newcomers
  where people + place <= capacity
),
-- The joins that are announced one by one: the first ones of a conversation, so their seqs have no gaps. Their ids have the
-- order of their seqs, also if the clocks of the callers differ.
single as materialized (
  select
    admitted.*, present.epoch,
    head_seq + place as seq,
    to_timestamp(at_ms / 1000.0) as at,
    json_build_object('user_id', user_id, 'role', role) as metadata,
    (array_agg(app.id_after(head_id, message_id)) over ids)[place] as id,
    (select app.profile_text(person) from app.users as person where person.id = admitted.user_id) as sender
  from admitted cross join present
  where before <= {large_above}
  window ids as (
    partition by conversation_id order by app.id_after(head_id, message_id)
    rows between unbounded preceding and unbounded following)
),
stored as (
  insert into app.messages (id, conversation_id, seq, sender_id, type, content, metadata, created_at, epoch)
  select id, conversation_id, seq, user_id, 'join', 'joined', metadata, at, epoch from single
),
-- As `admit.sql` of `chat::membership`: who comes, or comes back, starts anew, with the mark at the head.
seats as (
  insert into app.participants as participant (
    conversation_id, user_id, role, joined_at, last_read_seq, delivered_seq, engaged)
  select conversation_id, user_id, role, to_timestamp(at_ms / 1000.0), mark, mark, true
  from (
    select *, head_seq + least(place, greatest(0, {large_above} + 1 - people)) as mark from admitted
    order by conversation_id, user_id) as seated
  on conflict (conversation_id, user_id) do update set
    role = excluded.role,
    notifications = 'all',
    joined_at = excluded.joined_at,
    left_at = null,
    last_read_seq = excluded.last_read_seq,
    delivered_seq = excluded.delivered_seq,
    hidden_seq = null,
    engaged = true
),
announced as (
  insert into switchboard.outbox (shard, position, id, event_type, key, payload)
  select shard, switchboard.next_position(shard), id, event_type, key, payload
  from (
    select
      conversation_id, n, 1 as step, switchboard.shard(key) as shard, event_id as id,
      'conversation.participant.joined' as event_type, key,
      case
        when before <= {large_above} then
          json_build_object('conversation_id', conversation_id, 'user_id', user_id, 'role', role, 'by', user_id)
        else json_build_object(
          'conversation_id', conversation_id, 'user_id', user_id, 'role', role, 'by', user_id, 'counted', true)
      end as payload
    from admitted
    union all
    select conversation_id, n, 2, switchboard.shard(key), id, 'message.created', key,
      ('{"conversation_id":"' || conversation_id || '","seq":' || seq
        || case when epoch > 0 then ',"epoch":' || epoch else '' end || ',"message":'
        || app.message_text(id, conversation_id, seq, user_id, sender, 'join', 'joined', null, null, metadata, null, null,
             at, null, false, null) || '}')::json
    from single
    order by conversation_id, n, step) as ordered
),
counted as materialized (
  select
    conversation_id,
    app.members_changed(conversation_id, now_there, came, who_came, 0, '[]', changes_id)::int as shard
  from (
    select
      conversation_id, max(before) + 1 as now_there, count(*) as came,
      jsonb_path_query_array(
        jsonb_agg(jsonb_build_object('user_id', user_id, 'role', role, 'by', user_id) order by n), '$[0 to 19]') as who_came,
      (array_agg(changes_id order by n))[1] as changes_id
    from admitted
    where before > {large_above}
    group by conversation_id
    order by conversation_id) as large
)
select
  standing.n,
  case
    when standing.seated then 'already'
    when standing.open is not true then 'not_found'
    when admitted.n is not null then 'joined'
    when exists (
      select from admitted as first
      where first.conversation_id = standing.conversation_id and first.user_id = standing.user_id) then 'already'
    when standing.archived then 'archived'
    else 'full'
  end as verdict,
  switchboard.shard(standing.key)::int as shard,
  counted.shard as changes_shard
from standing
left join admitted using (n)
left join counted on counted.conversation_id = admitted.conversation_id
