update app.participants set engaged = false where user_id in ('bo', 'dee');
