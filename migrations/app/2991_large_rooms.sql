-- Large conversations: the participants do not get a push for each join and leave, but one push for all of them in an
-- interval. The handlers that add and remove participants count the changes here, under the lock of the conversation; the
-- relay announces them.

-- One row for each conversation that was ever large. It changes with joins and leaves, never with messages.
create table app.member_changes (
  conversation_id uuid primary key references app.conversations,
  -- The number of participants after the last change that was counted here.
  participants bigint not null,
  -- The changes since the last announcement: how many, and the first of them as {user_id, role, by}.
  joined bigint not null,
  joined_people jsonb not null,
  departed bigint not null,
  departed_people jsonb not null,
  -- The event that is to announce them, and when it was written. Null while nothing waits.
  event_id uuid,
  event_at timestamptz,
  -- The last announcement: its event, its time and its text. An event that comes again makes the same announcement.
  announced_by uuid,
  announced_at timestamptz,
  announced text
) with (fillfactor = 50);

-- Counts joins and leaves of a conversation that the caller has locked: `now_there` people are in it afterwards. The
-- first change after an announcement writes the event of the next one, with the id `event`; then it returns the shard
-- to wake. An event that was not handled for a minute is lost (an operator dropped it, say), and is written anew.
--
-- The event has a key of its own, because the relay postpones it, and must not postpone the conversation's messages.
--
-- For the handlers that are granted `execute`; they need nothing else for it.
create function app.members_changed(
  conversation uuid, now_there bigint, came bigint, who_came jsonb, went bigint, who_went jsonb, event uuid)
  returns smallint
  language sql volatile security definer set search_path = app, pg_temp
  as $$
    with counted as (
      insert into app.member_changes as counts (
        conversation_id, participants, joined, joined_people, departed, departed_people, event_id, event_at)
      values (conversation, now_there, came, who_came, went, who_went, event, now())
      on conflict (conversation_id) do update set
        participants = excluded.participants,
        joined = counts.joined + excluded.joined,
        -- The first twenty.
        joined_people = jsonb_path_query_array(counts.joined_people || excluded.joined_people, '$[0 to 19]'),
        departed = counts.departed + excluded.departed,
        departed_people = jsonb_path_query_array(counts.departed_people || excluded.departed_people, '$[0 to 19]'),
        event_id = case
          when counts.event_id is null or counts.event_at < now() - interval '1 minute' then excluded.event_id
          else counts.event_id end,
        event_at = case
          when counts.event_id is null or counts.event_at < now() - interval '1 minute' then excluded.event_at
          else counts.event_at end
      returning counts.event_id
    )
    insert into switchboard.outbox (shard, position, id, event_type, key, payload)
    select addressed.shard, switchboard.next_position(addressed.shard), event, 'conversation.members.changed',
      addressed.key, json_build_object('conversation_id', conversation)
    from (
      select named.key, switchboard.shard(named.key) as shard
      from (select 'members:' || conversation as key) as named) as addressed
    where exists (select from counted where counted.event_id = event)
    returning outbox.shard
  $$;
revoke all on function app.members_changed from public;
grant execute on function app.members_changed
  to switchboard_join_room, switchboard_participants, switchboard_classes;

-- A leave from a large conversation writes no message. So the participant says after which messages they left: the first
-- seq that they may not see. It is null for those who left before this migration; a message says when they did.
alter table app.participants add column left_seq bigint;
create index participants_gone on app.participants (conversation_id, left_seq) where left_at is not null;

grant select, update on app.member_changes to switchboard_outbox_relay;
