-- A slug is unique among what one person can see. One that is unique among all conversations tells strangers that a private
-- one exists: they try to take it. Private conversations are checked when they take a slug (`sdk::membership::must_be_free`),
-- under a lock on it; public channels are seen by everyone, so an index can keep theirs apart.
drop index app.conversations_slug_unique;
create unique index conversations_slug_unique on app.conversations (slug)
  where slug is not null and deleted_at is null and visibility = 'public';
create index conversations_by_slug on app.conversations (slug) where slug is not null and deleted_at is null;
