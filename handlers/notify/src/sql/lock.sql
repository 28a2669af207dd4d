-- One change of a person's notifications at a time, as the handler `notifications` does: the unread count that their
-- connections hear is then right, and in order. $1 the keys of these people's events, at most 1,000.
select switchboard.lock($1::text[])
