update app.participants set engaged = false;
