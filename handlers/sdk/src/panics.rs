//! Reports a panic to the host, with its message and its place in the source. The host then has both in the
//! failure of the call. Without a report it knows only that the guest trapped.

use std::any::Any;
use std::panic::{PanicHookInfo, set_hook};

use crate::log;

/// Sets the hook that reports a panic. Each export calls it first, because each call has a fresh instance.
/// The exports of a component run one at a time, so the hook is never set during a panic.
#[doc(hidden)]
pub fn report() {
    set_hook(Box::new(send));
}

fn send(info: &PanicHookInfo<'_>) {
    let location = info.location().map(ToString::to_string).unwrap_or_default();
    // The host knows the report by this one field (`wit/log.wit`).
    log::error(message(info.payload()), &[("panic.location", &location)]);
}

fn message(payload: &(dyn Any + Send)) -> &str {
    if let Some(text) = payload.downcast_ref::<&'static str>() {
        return text;
    }
    payload.downcast_ref::<String>().map_or("a value that is not text", String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_of_a_panic_is_its_text() {
        assert_eq!(message(&"plain"), "plain");
        assert_eq!(message(&"formatted".to_owned()), "formatted");
        assert_eq!(message(&7), "a value that is not text");
    }
}
