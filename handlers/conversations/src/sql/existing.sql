-- The direct conversation of a pair, and whether it is out of sight for who asks: $1, $2 the pair · $3 who asks
select conversation.id, mine.hidden_seq is not null as hidden
from app.conversations as conversation
join app.participants as mine on mine.conversation_id = conversation.id and mine.user_id = $3
where conversation.direct_low = $1 and conversation.direct_high = $2
