update app.users set username = 'carla' where id = 'cy';
