//! The entry. Everything is in the library, so that tests can call it.

/// A connection that came leaves short-lived memory around what stays of it. This allocator packs and gives back: an idle
/// connection costs half of what it does with the system's, and a crowd that has gone costs nothing.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    switchboard::main()
}
