-- Search: which messages, in which order, and how a hit is shown.

-- Text that may stand in HTML, as text and within quotes.
create function app.html_text(raw text) returns text
  language sql immutable parallel safe
  return replace(replace(replace(replace(replace(raw,
    '&', '&amp;'), '<', '&lt;'), '>', '&gt;'), '"', '&quot;'), '''', '&#39;');

-- How well a message answers: the share of the words that stand in it exactly, marks and all, and below that how often and
-- how near each other they do without them. The second is less than the weight of one word in the first, so exact words
-- always come first. `exact` is what the plain configuration makes of the question.
create function app.search_rank(found tsvector, content text, query tsquery, exact text[]) returns double precision
  language sql immutable parallel safe
  return (
    (select count(*) from unnest(exact) as word
      where word = any (tsvector_to_array(to_tsvector('simple', content))))::double precision / greatest(cardinality(exact), 1)
    + ts_rank(found, query, 32) / (cardinality(exact) + 1));

-- The best of the newest messages that hold all of the words: of one conversation, or of all that `me` is in. Null where
-- `me` is not in that one; no words, no messages.
--
-- However many there are, `candidates` of the newest are ranked and no more: the common words of a language are in every
-- other message. So they are looked for from the newest on, in windows of one month, one, two, four and so on, until there
-- are enough: a common word is answered by this month's partition, and a rare one costs little in any. The index knows
-- conversations as words. Which way through a window is fast depends on how common all of these are, so each is planned
-- with them known; that takes a millisecond, and a wrong plan takes seconds.
create function app.search_ids(me text, conversation uuid, words text, candidates integer, most integer) returns uuid[]
  language plpgsql stable set plan_cache_mode = force_custom_plan as $$
declare
  asked tsquery := plainto_tsquery('app.search', words);
  exact text[] := tsvector_to_array(to_tsvector('simple', words));
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
    -- Of somebody who is nowhere there is nothing to be found.
    return case when conversation is null then '{}'::uuid[] end;
  end if;
  if numnode(asked) = 0 then
    return '{}';
  end if;
  -- Of more than so many, the words alone are looked for: most of what they find is mine anyway.
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

-- A message's words wait in a list beside their index, so that a send need not sort them in, and every search reads the
-- whole list: at four megabytes, when a send would have to sort them in after all, that takes forty milliseconds. So they
-- are sorted in before, by housekeeping. Returns how many pages waited.
create function app.sort_words() returns bigint
  language sql volatile security definer set search_path = app, pg_temp set lock_timeout = '500ms'
  as $$
    select coalesce(sum(gin_clean_pending_list(indexed.indexrelid)), 0)::bigint
    from pg_catalog.pg_inherits as part
    join pg_catalog.pg_index as indexed on indexed.indrelid = part.inhrelid
    join pg_catalog.pg_class as named on named.oid = indexed.indexrelid
    join pg_catalog.pg_am as method on method.oid = named.relam and method.amname = 'gin'
    where part.inhparent = 'app.messages'::regclass
  $$;
revoke all on function app.sort_words() from public;
grant execute on function app.sort_words() to switchboard_housekeeping;

select switchboard.ensure_role('search');
grant usage on schema app to switchboard_search;
grant select on app.conversations, app.participants, app.users, app.messages to switchboard_search;
