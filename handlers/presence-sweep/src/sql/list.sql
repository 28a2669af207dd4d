-- The directory learns who connected: a name given in the token, until the person chooses one.
-- $1 number of the call · $2 who, null where it has heard of them · $3 the name
insert into app.users as person (id, display_name)
select distinct on (id) id, display_name
from unnest($1::int[], $2::text[], $3::text[]) as told(n, id, display_name)
where id is not null
order by id, n
on conflict (id) do update set display_name = excluded.display_name, updated_at = now()
where not person.edited and excluded.display_name is not null
  and person.display_name is distinct from excluded.display_name
