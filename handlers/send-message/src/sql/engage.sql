-- The sender has written a text here, so they may be seen by the others and see them: $1 where · $2 who. A statement of its own,
-- because few messages are the first of their sender: `append` would look for those who are not engaged with every message.
update app.participants set engaged = true
where conversation_id = $1 and user_id = $2 and left_at is null and not engaged
