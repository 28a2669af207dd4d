-- A history as it would have grown, written at once into the tables of the product: {conversations} groups of
-- ten people, {messages} messages in each, over half a year, in the order of time. Every person is in twenty
-- of them (where there are that many), and has read all but the last few. Words are as unequal as in a
-- language: the first of the list are in every other message, the last in a few. The words and the
-- conversations stay, for later runs.
select setseed(0.5);

select app.ensure_month('messages', (date_trunc('month', now() at time zone 'utc') - make_interval(months => ago))::date)
from generate_series(0, 6) as ago;

create table public.generated_words as
select n,
  -- Real words first, with their marks; made up ones behind them.
  coalesce(
    (string_to_array('không có là và của một được cho trong với người này khi đã đến năm nhà học đường con mẹ nước ăn trưa hôm '
      || 'nay ngày mai bạn lớp thầy cô bài tập điểm thi sách vở trường toán văn anh lý hóa sử địa giờ phòng họp việc làm',
      ' '))[n],
    'tu' || to_hex(n)) as word
from generate_series(1, 5000) as n;

create table public.generated_phrases as
select n, (
  select string_agg(word, ' ')
  -- The cube makes the first words common. Without `n` it would be drawn once for all.
  from (select 1 + floor(power(random() + 0 * n, 3) * 5000)::int as pick from generate_series(1, 5)) as drawn
  join public.generated_words on generated_words.n = pick) as phrase
from generate_series(0, 19999) as n;
create unique index on public.generated_phrases (n);

create table public.generated_conversations as
select c, (lpad(to_hex((extract(epoch from now() - interval '190 days') * 1000)::bigint + c), 12, '0')
  || '7000' || '8' || lpad(to_hex(c), 15, '0'))::uuid as id
from generate_series(0, {conversations} - 1) as c;

insert into app.conversations (id, kind, name, created_by, created_at, updated_at)
select id, 'group', 'generated ' || c, 'person-' || c % {people}, now() - interval '190 days', now() - interval '190 days'
from public.generated_conversations;

insert into app.participants (conversation_id, user_id, role, joined_at, last_read_seq, delivered_seq)
select id, 'person-' || (c + place * 37) % {people}, case when place = 0 then 'owner' else 'member' end,
  now() - interval '190 days', {messages} - floor(random() * 30)::int, {messages}
from public.generated_conversations, generate_series(0, 9) as place
on conflict do nothing;

create table public.generated_lists as
select n, array_agg(conversation_id) as ids
from generate_series(0, {people} - 1) as n
join app.participants on user_id = 'person-' || n
group by n;
create unique index on public.generated_lists (n);

insert into app.users (id, display_name)
select 'person-' || n, 'Person ' || n from generate_series(0, {people} - 1) as n;

insert into app.messages (id, conversation_id, seq, sender_id, type, content, created_at)
select
  (lpad(to_hex((extract(epoch from at) * 1000)::bigint), 12, '0') || '7' || substr(md5(seq || '/' || c), 1, 3)
    || '8' || substr(md5(seq || ':' || c), 1, 15))::uuid,
  id, seq, 'person-' || (c + (seq % 10) * 37) % {people}, 'text',
  (select phrase from public.generated_phrases where n = pick[1]) || ' '
    || (select phrase from public.generated_phrases where n = pick[2]),
  at
from (
  select seq, c, id,
    now() - interval '180 days' + seq * (interval '180 days' / {messages}) - c * interval '1 millisecond' as at,
    array[floor(random() * 20000)::int, floor(random() * 20000)::int] as pick
  from generate_series(1, {messages}) as seq, public.generated_conversations) as planned;

create unique index on public.generated_words (n);
create unique index on public.generated_conversations (c);
drop table public.generated_phrases;
analyze app.messages, app.participants, app.conversations, app.users, public.generated_words, public.generated_conversations,
  public.generated_lists;
-- As housekeeping does every two seconds.
select app.sort_words();
