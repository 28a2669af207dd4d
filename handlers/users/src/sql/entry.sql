-- Who somebody is, for others and for themself: $1 who
select
  (extract(epoch from person.updated_at) * 1000000)::bigint as version,
  app.directory_text(person) as entry,
  rtrim(app.directory_text(person), '}') || ',"email":' || coalesce(to_json(person.email)::text, 'null') || '}' as own
from app.users as person
where person.id = $1
