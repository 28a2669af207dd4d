-- The direct conversation of a pair, in sight again for who asks for it.
with pair as (
  select id from app.conversations where direct_low = $1 and direct_high = $2
),
shown as (
  update app.participants as participant set hidden_seq = null
  from pair
  where participant.conversation_id = pair.id and participant.user_id = $3 and participant.hidden_seq is not null
)
select id from pair
