-- One change of a person's notifications at a time: what the others are told of the unread count is then right, and in
-- order. $1 the key of the person's events.
select switchboard.lock(array[$1])
