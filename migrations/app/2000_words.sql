-- The chat product's schema: what people write to each other and who may read it. The host knows none of it.
-- Handlers reach it through roles of their own, each with the grants at the end of the file that needs them.

create schema app;

-- Search ignores accents and knows no language: `con duong` finds `con đường`, `do an to no` is no list of stop words.
create extension if not exists unaccent with schema public;
create text search configuration app.search (copy = pg_catalog.simple);
alter text search configuration app.search
  alter mapping for asciiword, asciihword, hword_asciipart, word, hword, hword_part, numword, numhword, hword_numpart
  with public.unaccent, simple;

-- A time as every answer writes it: UTC, RFC 3339, milliseconds.
create function app.rfc3339(at timestamptz) returns text
  language sql stable parallel safe
  return to_char(at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"');

-- The smallest UUIDv7 of a moment: where a month begins.
create function app.uuid_floor(at timestamptz) returns uuid
  language sql immutable parallel safe
  return (lpad(to_hex((extract(epoch from at) * 1000)::bigint), 12, '0') || '00000000000000000000')::uuid;

-- Names as people look for them: without case and accents. Immutable, because the dictionary is named.
create extension if not exists pg_trgm with schema public;
create function app.plain(name text) returns text
  language sql immutable strict parallel safe
  return lower(public.unaccent('public.unaccent'::regdictionary, name));
