//! Variables of the environment that begin with `SWITCHBOARD_` and are not settings of a node.

/// The variables that commands, tests and scripts of the product read.
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
/// A token for scripts that use a node.
const TOKEN: &str = "SWITCHBOARD_TOKEN";

pub(super) fn is_known(variable: &str) -> bool {
    variable == TOKEN || OTHERS.contains(&variable)
}

/// A variable that is not a setting. `None` if it is unset, empty or not UTF-8 text.
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
