-- Asked once in a rebuild, which visits every one of them.
select
  (select count(*) from app.conversations)
  + (select count(distinct user_id) from app.participants where left_at is null)
