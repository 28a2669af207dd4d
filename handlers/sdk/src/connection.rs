//! The life of connections. `wit/connection.wit`. Implement what `on.connection` of the manifest binds.

use crate::bindings::connection::exports::switchboard::host::connection as wit;
use crate::channels::EpochNumber;
pub use crate::connection_export as export;
use crate::{Position, Problem, Push, log};
pub use wit::{Closed, Gap, Opened, Page, Touch};

pub trait Handler {
    /// After `auth.success`, before any frame of the client. What it returns is sent first.
    fn open(_opened: Opened) -> Result<Vec<Push>, Problem> {
        Ok(Vec::new())
    }

    /// Once for each `open`, unless the node died.
    fn close(_closed: Closed) {}

    /// Once a second, everything touched on this node.
    fn touched(_node: String, _touches: Vec<Touch>) {}

    /// What an address published after a position.
    fn missed(gap: Gap) -> Result<Page, Problem> {
        log::error("bound to gaps it does not fill", &[("address", &gap.address)]);
        Err(Problem::internal())
    }
}

impl Gap {
    /// The last number that the subscriber has on a track; 0 of the first epoch if it has none.
    pub fn after(&self, track: u8) -> EpochNumber {
        EpochNumber::unpack(number(&self.after, track))
    }
}

pub fn number(positions: &[Position], track: u8) -> u64 {
    positions.iter().find(|position| position.track == track).map_or(0, |position| position.number)
}

#[doc(hidden)]
pub use crate::bindings::connection as bindings;

#[macro_export]
#[doc(hidden)]
macro_rules! connection_export {
    ($handler:ident) => {
        const _: () = {
            use $crate::connection::{Closed, Gap, Handler, Opened, Page, Touch};

            struct Exported;
            impl $crate::connection::bindings::exports::switchboard::host::connection::Guest for Exported {
                fn open(opened: Opened) -> Result<Vec<$crate::Push>, $crate::Problem> {
                    <$handler as Handler>::open(opened)
                }
                fn close(closed: Closed) {
                    <$handler as Handler>::close(closed)
                }
                fn touched(node: String, touches: Vec<Touch>) {
                    <$handler as Handler>::touched(node, touches)
                }
                fn missed(gap: Gap) -> Result<Page, $crate::Problem> {
                    <$handler as Handler>::missed(gap)
                }
            }
            $crate::bindings::connection::export_connection!(Exported);
        };
    };
}
