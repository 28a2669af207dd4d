update app.participants set notifications = 'none' where user_id = 'bo';
update app.participants set notifications = 'mentions' where user_id = 'cy';
