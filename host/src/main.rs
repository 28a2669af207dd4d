//! The entry. Everything is in the library, so that tests can call it.

fn main() -> std::process::ExitCode {
    switchboard::cli::main()
}
