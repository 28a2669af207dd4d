-- Keys from this hour, and from almost seven, almost eight and nine days ago.
insert into app.message_keys (user_id, client_msg_id, fingerprint, message_id, created_at)
select 'ana', 'k' || hours, 7, app.uuid_at(now() - make_interval(hours => hours)), now() - make_interval(hours => hours)
from unnest(array[1, 160, 190, 216]) as hours;
