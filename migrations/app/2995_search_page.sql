-- A search that Redis has no ids for is one statement now, and the functions of a search are planned once for each
-- connection. Figures: `docs/decisions/search.md`.
--
-- `search_ids` is planned for each search (`force_custom_plan`), and Postgres applies that setting to every function that it
-- calls. So each of up to 200 ranks was planned again, which took longer than the search itself. Functions in SQL that Postgres
-- does not inline are planned in each statement too. The functions below are in PL/pgSQL, and only the windows are planned for
-- each search (`search_newest`). They return what they returned before. `search_ids` stays for releases that call it.

-- The words of a question, folded as those of messages are; of a run without spaces its pairs, or its only letter with a star.
create or replace function app.search_terms(question text) returns text[]
  language plpgsql immutable strict parallel safe as $$
declare
  words text[] := string_to_array(app.search_split(app.search_fold(question)), ' ');
begin
  return array(
    select term
    from unnest(words) with ordinality as split(word, n),
      lateral (
        select word as term where word !~ ('^[' || app.search_unspaced() || ']') and word <> ''
        union all
        select substr(word, at, 2) || case when length(word) = 1 then '*' else '' end
        from generate_series(1, greatest(length(word) - 1, 1)) as at
        where word ~ ('^[' || app.search_unspaced() || ']')) as terms
    group by term order by min(n), min(term));
end $$;

-- All of the terms; null where there are none.
create or replace function app.search_query(terms text[]) returns tsquery
  language plpgsql immutable strict parallel safe as $$
begin
  return (
    select string_agg(wanted::text, ' & ')::tsquery
    from unnest(terms) as term,
      lateral (
        select case when term like '_*' then (quote_literal(left(term, 1)) || ':*')::tsquery
          else plainto_tsquery('simple', term) end as wanted) as one
    where numnode(wanted) > 0);
end $$;

-- The words as they are written, marks and all: a message that has them so comes first. To see that a text is in NFC, as
-- messages are, takes a third of the time of making it so.
create or replace function app.search_exact(content text) returns text[]
  language plpgsql immutable strict parallel safe as $$
begin
  return string_to_array(
    trim(app.search_split(lower(case when content is nfc normalized then content else normalize(content, NFC) end))), ' ');
end $$;

-- How well a message answers: the share of the words that stand in it exactly, marks and all, and below that how often and
-- how near each other they do without them. It has no statement, only expressions: it runs 200 times in a search.
create or replace function app.search_rank(vector tsvector, content text, query tsquery, exact text[]) returns double precision
  language plpgsql immutable parallel safe as $$
declare
  -- As `search_exact` has it, but divided into words only where one of the words can be found.
  lowered text := lower(case when content is nfc normalized then content else normalize(content, NFC) end);
  written text[];
  word text;
  share double precision := 0;
begin
  foreach word in array coalesce(exact, '{}') loop
    if strpos(lowered, word) > 0 then
      written := coalesce(written, string_to_array(trim(app.search_split(lowered)), ' '));
      if word = any (written) then
        share := share + 1;
      end if;
    end if;
  end loop;
  return share / greatest(cardinality(exact), 1) + ts_rank(vector, query, 32) / (cardinality(exact) + 1);
end $$;

-- A message as a hit is shown: HTML, escaped, with each hit in <mark>; whole up to 200 characters, of a longer text some 30
-- words around the first hit. What is marked is found by the same words as the message was.
create or replace function app.search_snippet(content text, terms text[]) returns text
  language plpgsql immutable strict parallel safe as $$
declare
  -- Three control characters stand between pieces and around hits, so the text must not have them.
  shown text := translate(content, e'\x01\x02\x03', '   ');
  -- The text in pieces: what lies between words, words, and of a run without spaces each letter with its marks.
  joined text := case when content ~ ('[' || app.search_unspaced() || ']')
    then replace(
      regexp_replace(shown, '([' || app.search_gaps() || ']+|[' || app.search_unspaced()
        || '][\u0300-\u036f\u0e47-\u0e4e\u0ec8-\u0ecd\u3099\u309a\ufe00-\ufe0f]*)', e'\x01\\1\x01', 'g'),
      e'\x01\x01', e'\x01')
    else regexp_replace(shown, '([' || app.search_gaps() || ']+)', e'\x01\\1\x01', 'g') end;
  pieces text[];
  -- All of them are folded at once.
  folded text;
  hits integer[];
  hit integer;
  low integer := 1;
  high integer;
begin
  joined := trim(both e'\x01' from joined);
  pieces := string_to_array(joined, e'\x01');
  folded := app.search_fold(joined);
  high := cardinality(pieces);
  if folded ~ ('[' || app.search_unspaced() || ']') then
    hits := array(
      select distinct marked
      from (
        select n, word, lead(word) over (order by n) as next from unnest(string_to_array(folded, e'\x01')) with ordinality as split(word, n)) as piece,
        lateral (
          select n as marked where word = any (terms) or word || '*' = any (terms)
            or word !~ ('[' || app.search_unspaced() || ']') and string_to_array(trim(app.search_split(word)), ' ') && terms
          union all
          select unnest(array[n, n + 1]) where word || next = any (terms) and next ~ ('[' || app.search_unspaced() || ']'))
        as marks
      order by marked);
  else
    hits := array(
      select n from unnest(string_to_array(folded, e'\x01')) with ordinality as split(word, n)
      where word = any (terms)
        -- A character that is several words when it is folded, such as `½`, or a word beside a gap.
        or word <> ' ' and word ~ ('[' || app.search_gaps() || ']')
          and string_to_array(trim(app.search_split(word)), ' ') && terms
      order by n);
  end if;
  if length(content) > 200 then
    low := greatest(coalesce(hits[1], 1) - 20, 1);
    high := least(low + 60, high);
  end if;
  foreach hit in array hits loop
    pieces[hit] := e'\x02' || pieces[hit] || e'\x03';
  end loop;
  return replace(replace(
    app.html_text(replace(array_to_string(pieces[low:high], ''), e'\x03\x02', '')), e'\x02', '<mark>'), e'\x03', '</mark>');
end $$;

-- About how many messages have the words, by the statistics of the planner. It is volatile, because a function that is not may
-- not explain.
create function app.search_estimate(asked tsquery) returns double precision
  language plpgsql volatile as $$
declare
  plan json;
begin
  execute format('explain (format json) select from app.messages as message where message.search @@ %L', asked) into plan;
  return plan -> 0 -> 'Plan' ->> 'Plan Rows';
end $$;

-- The newest messages that have the words, of these conversations: at most `candidates`, with what a rank is made of. The fast
-- way depends on the words and the conversations, so it is planned with them.
create function app.search_newest(
    mine uuid[], asked tsquery, candidates integer, out ids uuid[], out contents text[], out vectors tsvector[])
  language plpgsql stable set plan_cache_mode = force_custom_plan as $$
declare
  query tsquery := asked;
  month timestamp := date_trunc('month', now() at time zone 'UTC');
  low uuid := app.uuid_floor(month at time zone 'UTC');
  high uuid := 'ffffffff-ffff-ffff-ffff-ffffffffffff';
  step integer := 1;
begin
  -- Few messages have the words: the lists of these words are short, so the words alone are looked up, in all months at once.
  if app.search_estimate(asked) < 10000 then
    select coalesce(array_agg(newest.id), '{}'), coalesce(array_agg(newest.content), '{}'),
        coalesce(array_agg(newest.search), '{}')
      into ids, contents, vectors
      from (
        select message.id, message.content, message.search from app.messages as message
        where message.search @@ asked and message.conversation_id = any (mine)
          and message.type = 'text' and message.deleted_at is null
        order by message.id desc limit candidates) as newest;
    return;
  end if;
  ids := '{}';
  contents := '{}';
  vectors := '{}';
  -- For a user with more conversations than this, the index is asked for the words alone: most hits are the user's anyway.
  if cardinality(mine) <= 500 then
    select asked && string_agg(quote_literal(app.place_word(room)), '|')::tsquery into query from unnest(mine) as room;
  end if;
  loop
    select ids || coalesce(array_agg(newest.id), '{}'), contents || coalesce(array_agg(newest.content), '{}'),
        vectors || coalesce(array_agg(newest.search), '{}')
      into ids, contents, vectors
      from (
        select message.id, message.content, message.search from app.messages as message
        where message.search @@ query and message.conversation_id = any (mine)
          and message.id >= low and message.id < high
          and message.type = 'text' and message.deleted_at is null
        order by message.id desc limit candidates - cardinality(ids)) as newest;
    exit when cardinality(ids) >= candidates or low = '00000000-0000-0000-0000-000000000000';
    high := low;
    month := month - make_interval(months => step);
    step := step * 2;
    low := app.uuid_floor(month at time zone 'UTC');
    -- No message is older than its conversation: this is the last window, and to be sure it holds all that is left.
    if low <= mine[1] then
      low := '00000000-0000-0000-0000-000000000000';
    end if;
  end loop;
end $$;

-- A whole search: the best `most` of the newest `candidates` messages that have the words, of one conversation or of all of a
-- user's, and the first `shown` of them as results in JSON. `ids` is null for a user who is not in that one conversation.
create function app.search_page(
    me text, conversation uuid, words text, candidates integer, most integer, shown integer,
    out ids uuid[], out results text)
  language plpgsql stable as $$
declare
  terms text[] := app.search_terms(words);
  asked tsquery := app.search_query(terms);
  exact text[] := app.search_exact(words);
  mine uuid[];
  ranks double precision[];
begin
  select array_agg(participant.conversation_id order by participant.conversation_id) into mine
    from app.participants as participant
    join app.conversations as known on known.id = participant.conversation_id and known.deleted_at is null
    where participant.user_id = me and participant.left_at is null
      and (conversation is null or participant.conversation_id = conversation);
  results := '[]';
  if mine is null and conversation is not null then
    return;
  end if;
  ids := '{}';
  -- A user without conversations, and a question without words, find nothing.
  if mine is null or asked is null then
    return;
  end if;
  select array_agg(best.id), array_agg(best.rank) into ids, ranks
    from (
      select found.id, app.search_rank(found.vector, found.content, asked, exact) as rank
      from app.search_newest(mine, asked, candidates) as newest,
        unnest(newest.ids, newest.contents, newest.vectors) as found(id, content, vector)
      order by rank desc, found.id desc limit most) as best;
  if ids is null then
    ids := '{}';
    return;
  end if;
  select '[' || string_agg('{"message":' || app.message_text(
      message.id, message.conversation_id, message.seq, message.sender_id, app.profile_text(sender), message.type,
      message.content, message.reply_to_id, message.attachments, message.metadata, message.mentions, message.client_msg_id,
      message.created_at, message.edited_at, false, message.change)
    || ',"snippet":' || to_json(app.search_snippet(message.content, terms))
    || ',"rank":' || round(best.rank::numeric, 6) || '}', ',' order by best.rank desc, best.id desc) || ']'
    into results
    from unnest(ids[:shown], ranks[:shown]) as best(id, rank)
    cross join lateral (select message.* from app.messages as message where message.id = best.id offset 0) as message
    left join app.users as sender on sender.id = message.sender_id;
end $$;
