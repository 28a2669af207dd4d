//! The lifecycle of connections. `wit/connection.wit`. A handler implements the functions that
//! `on.connection` of its manifest binds.

use crate::bindings::connection::exports::switchboard::host::connection as wit;
use crate::channels::EpochNumber;
pub use crate::connection_export as export;
use crate::{Position, Problem, Push, log};
pub use wit::{Closed, Gap, Opened, Page, Touch};

pub trait Handler {
    /// The host calls it after `auth.success` and before it handles any frame of the client. It sends the
    /// returned pushes first.
    fn open(_opened: Opened) -> Result<Vec<Push>, Problem> {
        Ok(Vec::new())
    }

    /// The host calls it once for each `open`, unless the node crashed.
    fn close(_closed: Closed) {}

    /// The host calls it once a second, with all connections of this node on which a sign of life arrived.
    fn touched(_node: String, _touches: Vec<Touch>) {}

    /// Returns the frames that an address published after a position.
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

/// The number on a track; 0 if the positions do not name the track.
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
                    $crate::panics::report();
                    <$handler as Handler>::open(opened)
                }
                fn close(closed: Closed) {
                    $crate::panics::report();
                    <$handler as Handler>::close(closed)
                }
                fn touched(node: String, touches: Vec<Touch>) {
                    $crate::panics::report();
                    <$handler as Handler>::touched(node, touches)
                }
                fn missed(gap: Gap) -> Result<Page, $crate::Problem> {
                    $crate::panics::report();
                    <$handler as Handler>::missed(gap)
                }
            }
            $crate::bindings::connection::export_connection!(Exported);
        };
    };
}
