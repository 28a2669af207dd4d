//! The begin and the end of many connections in one call. `wit/connection-batch.wit`. A handler implements
//! the functions that `on.connection` of its manifest binds with `"batch"`.

use crate::bindings::connection_batch::exports::switchboard::host::connection_batch as wit;
pub use crate::connection_batch_export as export;
pub use wit::{Closed, Opened, Opening};

pub trait Handler {
    /// The host calls it after `auth.success` and before it handles any frame of these clients. It returns
    /// one result for each connection, in order.
    fn open(_node: String, opened: Vec<Opened>) -> Vec<Opening> {
        opened.iter().map(|_| Opening::Pushes(Vec::new())).collect()
    }

    /// The host calls it once for each opened connection, unless the node crashed or the call failed.
    fn close(_node: String, _closed: Vec<Closed>) {}
}

#[doc(hidden)]
pub use crate::bindings::connection_batch as bindings;

#[macro_export]
#[doc(hidden)]
macro_rules! connection_batch_export {
    ($handler:ident) => {
        const _: () = {
            use $crate::connection_batch::{Closed, Handler, Opened, Opening};

            struct Exported;
            impl $crate::connection_batch::bindings::exports::switchboard::host::connection_batch::Guest
                for Exported
            {
                fn open(node: String, opened: Vec<Opened>) -> Vec<Opening> {
                    $crate::panics::report();
                    <$handler as Handler>::open(node, opened)
                }
                fn close(node: String, closed: Vec<Closed>) {
                    $crate::panics::report();
                    <$handler as Handler>::close(node, closed)
                }
            }
            $crate::bindings::connection_batch::export_connection_batch!(Exported);
        };
    };
}
