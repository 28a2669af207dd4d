-- Where a person's presence may be seen: in conversations that they joined by themselves or wrote something in, by people
-- who did the same there. Being added by another person shows nothing, or a stranger could watch anybody by adding them to
-- a conversation.

alter table app.participants add column engaged boolean not null default false;
comment on column app.participants.engaged is
  'Joined by themself (made it, joined a channel, joined a class by its code) or has written a text since. Set once; whoever comes back begins anew.';

-- The conversations in which a person is seen, and the people of a conversation who do not see.
create index participants_engaged on app.participants (user_id, conversation_id) where left_at is null and engaged;
create index participants_unengaged on app.participants (conversation_id, user_id) where left_at is null and not engaged;

-- Whether a person sees another's presence.
create function app.sees(viewer text, other text) returns boolean
  language sql stable parallel safe
  return viewer = other or exists (
    select from app.participants as mine
    join app.participants as theirs
      on theirs.conversation_id = mine.conversation_id and theirs.user_id = other and theirs.left_at is null
      and theirs.engaged
    join app.conversations as conversation on conversation.id = mine.conversation_id and conversation.deleted_at is null
    where mine.user_id = viewer and mine.left_at is null and mine.engaged);

grant update (engaged) on app.participants to switchboard_send_message;

-- Those who are there already: what they did since they last came.
update app.participants as participant set engaged = true
from (
  select conversation_id, user_id, max(at) as at
  from (
    select conversation_id, sender_id as user_id, created_at as at from app.messages where type = 'text'
    union all
    select conversation_id, sender_id, created_at from app.messages
    where type = 'join' and metadata ->> 'user_id' = sender_id
    union all
    select id, created_by, created_at from app.conversations) as act
  group by conversation_id, user_id) as acted
where participant.conversation_id = acted.conversation_id and participant.user_id = acted.user_id
  and participant.left_at is null and acted.at >= participant.joined_at;
