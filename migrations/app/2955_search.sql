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
-- other message. Which way there is fast depends on how common the words are and on how many conversations there are, so
-- it is planned anew each time, with both known; that takes half a millisecond, and a wrong plan takes seconds.
create function app.search_ids(me text, conversation uuid, words text, candidates integer, most integer) returns uuid[]
  language plpgsql stable set plan_cache_mode = force_custom_plan as $$
declare
  query tsquery := plainto_tsquery('app.search', words);
  exact text[] := tsvector_to_array(to_tsvector('simple', words));
  mine uuid[];
  -- The words' index knows nothing of conversations: to read it for two common words takes a hundred milliseconds, to walk
  -- through five thousand messages ten.
  walk boolean := false;
begin
  select array_agg(participant.conversation_id) into mine
    from app.participants as participant
    join app.conversations as known on known.id = participant.conversation_id and known.deleted_at is null
    where participant.user_id = me and participant.left_at is null
      and (conversation is null or participant.conversation_id = conversation);
  if mine is null then
    -- Of somebody who is nowhere there is nothing to be found.
    return case when conversation is null then '{}'::uuid[] end;
  end if;
  if numnode(query) = 0 then
    return '{}';
  end if;
  if conversation is not null then
    select coalesce(max(head.seq), 0) <= 5000 into walk from (
      select message.seq from app.messages as message
      where message.conversation_id = conversation order by message.seq desc limit 1) as head;
    return (
      select coalesce(array_agg(id order by rank desc, id desc), '{}') from (
        select newest.id, app.search_rank(newest.search, newest.content, query, exact) as rank
        from (
          select message.id, message.content, message.search from app.messages as message
          where message.conversation_id = conversation and message.type = 'text' and message.deleted_at is null
            -- No index answers `is true`, and `walk` is a constant to the planner.
            and (walk or message.search @@ query) and (message.search @@ query) is true
          order by message.seq desc limit candidates) as newest
        order by rank desc, newest.id desc limit most) as best);
  end if;
  return (
    select coalesce(array_agg(id order by rank desc, id desc), '{}') from (
      select newest.id, app.search_rank(newest.search, newest.content, query, exact) as rank
      from (
        select message.id, message.content, message.search from app.messages as message
        where message.conversation_id = any (mine) and message.search @@ query
          and message.type = 'text' and message.deleted_at is null
        order by message.id desc limit candidates) as newest
      order by rank desc, newest.id desc limit most) as best);
end $$;

select switchboard.ensure_role('search');
grant usage on schema app to switchboard_search;
grant select on app.conversations, app.participants, app.users, app.messages to switchboard_search;
