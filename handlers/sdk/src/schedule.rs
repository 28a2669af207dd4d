//! Run work at intervals. `wit/schedule.wit`.

pub use crate::bindings::schedule::exports::switchboard::host::schedule::{Guest as Handler, Tick};
pub use crate::schedule_export as export;

#[macro_export]
#[doc(hidden)]
macro_rules! schedule_export {
    ($handler:ident) => {
        const _: () = {
            use $crate::schedule::{Handler, Tick};

            struct Exported;
            impl Handler for Exported {
                fn run(tick: Tick) -> Result<(), String> {
                    $crate::panics::report();
                    <$handler as Handler>::run(tick)
                }
            }
            $crate::bindings::schedule::export_schedule!(Exported);
        };
    };
}
