update app.participants set engaged = false where user_id = 'dee';
