//! Writes log lines. The host adds the names of handler, release and call. A handler never logs message text,
//! tokens or secrets.

use crate::bindings::platform::switchboard::host::log;
pub use log::Level;

pub fn debug(message: &str, fields: &[(&str, &str)]) {
    line(Level::Debug, message, fields);
}

pub fn info(message: &str, fields: &[(&str, &str)]) {
    line(Level::Info, message, fields);
}

pub fn warn(message: &str, fields: &[(&str, &str)]) {
    line(Level::Warn, message, fields);
}

pub fn error(message: &str, fields: &[(&str, &str)]) {
    line(Level::Error, message, fields);
}

fn line(level: Level, message: &str, fields: &[(&str, &str)]) {
    let fields: Vec<_> = fields.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    log::log(level, message, &fields);
}
