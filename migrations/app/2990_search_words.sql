-- Which words a message has, for search. Until now Postgres' parser decided: it takes `thầy/cô` for a file name, `CS-101`
-- for a word and a negative number, and a sentence in Chinese for one word, so the parts were not found. Now these functions
-- decide, for messages and for questions alike (`docs/decisions/search.md`).

-- The text without case and without marks on letters: canonical and compatible forms become one (`ﬁ` is `fi`, `Ａ` is `a`),
-- combining marks, tatweel, variation selectors and invisible format characters go, and `unaccent` maps the letters that have
-- no decomposition (`đ` is `d`). Vowel signs of Brahmic scripts stay, because a word without them is another word; so do the
-- voicing marks of Japanese.
create function app.search_fold(content text) returns text
  language plpgsql immutable strict parallel safe as $$
begin
  if content !~ '[^\x01-\x7f]' then
    return lower(content);
  end if;
  content := public.unaccent('public.unaccent'::regdictionary, content);
  -- Most European text, Vietnamese included, is done here; the rest costs about 20 µs.
  if content !~ '[^\x01-\x7f]' then
    return lower(content);
  end if;
  content := regexp_replace(normalize(content, NFKD),
    '[\u00ad\u0300-\u036f\u0483-\u0487\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u0640\u064b-\u065f\u0670'
    '\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8\u06ea-\u06ed\u0711\u0730-\u074a\u093c\u09bc\u0a3c\u0abc\u0b3c\u0e47-\u0e4e\u0ec8-\u0ecd'
    '\u1ab0-\u1aff\u1dc0-\u1dff\u200c-\u200f\u202a-\u202e\u2060-\u206f\u20d0-\u20f0\ufe00-\ufe0f\ufe20-\ufe2f\ufeff]+',
    '', 'g');
  return translate(lower(public.unaccent('public.unaccent'::regdictionary, normalize(content, NFC))), 'ς', 'σ');
end $$;

-- What stands between words: everything in ASCII that is neither letter nor digit, and the punctuation and symbols beyond it.
create function app.search_gaps() returns text
  language sql immutable parallel safe
  return '\x01-\x2f\x3a-\x40\x5b-\x60\x7b-\u00a9\u00ab\u00ac\u00ae-\u00b1\u00b4\u00b6-\u00b8\u00bb\u00bf\u00d7\u00f7'
    '\u2000-\u200b\u2010-\u2029\u202f-\u205f\u20a0-\u20cf\u2190-\u2bff\u3000-\u3004\u3008-\u3020\u3030\u303d\u30fb\ufe10-\ufe1f\ufe30-\ufe6f'
    '\U0001f000-\U0001faff';

-- The letters of scripts that put no space between words: Thai, Lao, Burmese, Khmer, Japanese, Chinese; and Korean, which
-- writes particles onto the word.
create function app.search_unspaced() returns text
  language sql immutable parallel safe
  return '\u0e00-\u0e4f\u0e80-\u0eff\u1000-\u109f\u1780-\u17df\u3005-\u3007\u3041-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\u3400-\u9fff\uac00-\ud7a3'
    '\uf900-\ufaff\U00020000-\U0003ffff';

-- The words of a text, one space before each. A run of letters without spaces stands for itself here.
create function app.search_split(folded text) returns text
  language plpgsql immutable strict parallel safe as $$
begin
  folded := ' ' || regexp_replace(folded, '[' || app.search_gaps() || ']+', ' ', 'g');
  if folded ~ ('[' || app.search_unspaced() || ']') then
    folded := regexp_replace(folded, '([' || app.search_unspaced() || ']+)', ' \1 ', 'g');
  end if;
  return folded;
end $$;

-- What a message is found by. Of a run without spaces these are every two neighbouring letters, and its last letter alone:
-- `搜索词` has `搜索`, `索词` and `词`. So every part of a run is found, of one letter as well, because a single letter is
-- looked for as the beginning of a pair.
create function app.search_vector(content text, conversation uuid) returns tsvector
  language plpgsql immutable strict parallel safe as $$
declare
  words text := app.search_split(app.search_fold(content));
  letter text := '[' || app.search_unspaced() || ']';
  runs text;
begin
  if words ~ letter then
    runs := regexp_replace(words, '[^' || app.search_unspaced() || ']+', ' ', 'g');
    words := regexp_replace(words, letter || '+', ' ', 'g')
      -- Pairs from the first letter on, and pairs from the second on.
      || regexp_replace(runs, '(' || letter || letter || ')', '\1 ', 'g')
      || ' ' || regexp_replace(regexp_replace(runs, ' ' || letter || '(?=' || letter || ')', ' ', 'g'),
        '(' || letter || letter || ')', '\1 ', 'g');
  end if;
  return to_tsvector('simple', words) || array_to_tsvector(array[app.place_word(conversation)]);
end $$;

-- A question's words, folded as those of messages are; of a run without spaces its pairs, or its only letter with a star.
create function app.search_terms(question text) returns text[]
  language sql immutable strict parallel safe
  return array(
    select term
    from unnest(string_to_array(app.search_split(app.search_fold(question)), ' ')) with ordinality as split(word, n),
      lateral (
        select word as term where word !~ ('^[' || app.search_unspaced() || ']') and word <> ''
        union all
        select substr(word, at, 2) || case when length(word) = 1 then '*' else '' end
        from generate_series(1, greatest(length(word) - 1, 1)) as at
        where word ~ ('^[' || app.search_unspaced() || ']')) as terms
    group by term order by min(n), min(term));

-- All of the terms; null where there are none.
create function app.search_query(terms text[]) returns tsquery
  language sql immutable strict parallel safe
  return (
    select string_agg(wanted::text, ' & ')::tsquery
    from unnest(terms) as term,
      lateral (
        select case when term like '_*' then (quote_literal(left(term, 1)) || ':*')::tsquery
          else plainto_tsquery('simple', term) end as wanted) as one
    where numnode(wanted) > 0);

-- The words as they are written, marks and all: a message that has them so comes first.
create function app.search_exact(content text) returns text[]
  language sql immutable strict parallel safe
  return string_to_array(trim(app.search_split(lower(normalize(content, NFC)))), ' ');

drop function app.search_rank(tsvector, text, tsquery, text[]);
create function app.search_rank(vector tsvector, content text, query tsquery, exact text[]) returns double precision
  language plpgsql immutable parallel safe as $$
declare
  written text[] := app.search_exact(content);
begin
  return (select count(*) from unnest(exact) as word where word = any (written))::double precision
      / greatest(cardinality(exact), 1)
    + ts_rank(vector, query, 32) / (cardinality(exact) + 1);
end $$;

-- A message as a hit is shown: HTML, escaped, with each hit in <mark>; whole up to 200 characters, of a longer text some 30
-- words around the first hit. What is marked is found by the same words as the message was.
create function app.search_snippet(content text, terms text[]) returns text
  language plpgsql immutable strict parallel safe as $$
declare
  letter text := '[' || app.search_unspaced() || ']';
  -- The text in pieces: what lies between words, words, and of a run without spaces each letter with its marks.
  pieces text[] := array(select piece[1] from regexp_matches(content,
    '[' || app.search_gaps() || ']+|' || letter || '[\u0300-\u036f\u0e47-\u0e4e\u0ec8-\u0ecd\u3099\u309a\ufe00-\ufe0f]*'
      '|[^' || app.search_gaps() || app.search_unspaced() || ']+', 'g') as piece);
  -- One control character between them, which no message has, so that all are folded in one go.
  folded text[] := string_to_array(app.search_fold(array_to_string(pieces, e'\x01')), e'\x01');
  hits boolean[] := array_fill(false, array[cardinality(pieces)]);
  low integer := 1;
  high integer := cardinality(pieces);
  first_hit integer;
begin
  for n in 1 .. cardinality(pieces) loop
    if folded[n] = any (terms) or folded[n] || '*' = any (terms) then
      hits[n] := true;
    elsif folded[n] !~ letter and string_to_array(trim(app.search_split(folded[n])), ' ') && terms then
      hits[n] := true;
    end if;
    if n > 1 and folded[n - 1] || folded[n] = any (terms) and folded[n] ~ letter then
      hits[n - 1] := true;
      hits[n] := true;
    end if;
  end loop;
  if length(content) > 200 then
    first_hit := coalesce(array_position(hits, true), 1);
    low := greatest(first_hit - 20, 1);
    high := least(low + 60, cardinality(pieces));
  end if;
  return replace(
    (select string_agg(case when hits[n] then '<mark>' || app.html_text(pieces[n]) || '</mark>' else app.html_text(pieces[n]) end,
      '' order by n) from generate_series(low, high) as n),
    '</mark><mark>', '');
end $$;

-- As before (2955), with the words of these functions.
create or replace function app.search_ids(me text, conversation uuid, words text, candidates integer, most integer) returns uuid[]
  language plpgsql stable set plan_cache_mode = force_custom_plan as $$
declare
  asked tsquery := app.search_query(app.search_terms(words));
  exact text[] := app.search_exact(words);
  mine uuid[];
  query tsquery := asked;
  -- The window: ids from `low` on, below `high`. First this month and what is ahead of it.
  month timestamp := date_trunc('month', now() at time zone 'UTC');
  low uuid := app.uuid_floor(month at time zone 'UTC');
  high uuid := 'ffffffff-ffff-ffff-ffff-ffffffffffff';
  step integer := 1;
  ids uuid[] := '{}';
  ranks double precision[] := '{}';
begin
  select array_agg(participant.conversation_id order by participant.conversation_id) into mine
    from app.participants as participant
    join app.conversations as known on known.id = participant.conversation_id and known.deleted_at is null
    where participant.user_id = me and participant.left_at is null
      and (conversation is null or participant.conversation_id = conversation);
  if mine is null then
    -- A user without conversations finds nothing.
    return case when conversation is null then '{}'::uuid[] end;
  end if;
  if asked is null then
    return '{}';
  end if;
  -- For a user with more conversations than this, the index is asked for the words alone: most hits are the user's anyway.
  if cardinality(mine) <= 500 then
    select asked && string_agg(quote_literal(app.place_word(room)), '|')::tsquery into query from unnest(mine) as room;
  end if;
  loop
    select ids || coalesce(array_agg(newest.id), '{}'),
        ranks || coalesce(array_agg(app.search_rank(newest.search, newest.content, asked, exact)), '{}')
      into ids, ranks
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
  return (
    select coalesce(array_agg(id order by rank desc, id desc), '{}')
    from (select id, rank from unnest(ids, ranks) as found(id, rank) order by rank desc, id desc limit most) as best);
end $$;

-- Postgres cannot change how a generated column is made, so it is made anew: this rewrites `messages` and its index, and
-- nobody sends or reads meanwhile. The expression is now a function of ours, whose body a later migration may replace.
alter table app.messages drop column search;
alter table app.messages add column search tsvector generated always as (app.search_vector(content, conversation_id)) stored;
create index messages_by_words on app.messages using gin (search);
