//! Variables of the environment that begin with `SWITCHBOARD_` and are no settings of a node.

/// Those that commands, tests and scripts of the product read.
const OTHERS: [&str; 10] = [
    "SWITCHBOARD_CHECK_SERVICE_TOKEN",
    "SWITCHBOARD_CHECK_TOKEN",
    "SWITCHBOARD_CHECK_URL",
    "SWITCHBOARD_JS_MODULES",
    "SWITCHBOARD_PROGRAM",
    "SWITCHBOARD_SCREENSHOTS",
    "SWITCHBOARD_TEST_BINARY",
    "SWITCHBOARD_TEST_DATABASE_URL",
    "SWITCHBOARD_TEST_REDIS_URL",
    "SWITCHBOARD_WASM_ROUTE",
];
/// A token for scripts that talk to a node.
const TOKEN: &str = "SWITCHBOARD_TOKEN";

pub(super) fn is_known(variable: &str) -> bool {
    variable == TOKEN || OTHERS.contains(&variable)
}

/// A variable that is no setting. `None` when it is unset, empty or not UTF-8 text.
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
