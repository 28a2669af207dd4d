//! `services`, which starts the servers of a test run: they end with the run, and their clock can be set.

use std::process::{Command, Output, Stdio};

use switchboard_services::faketime::{self, Moment};
use switchboard_tests::{paths, token};

fn services(line: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new("sh");
    command.args(["-c", line]).arg(paths::sibling("services")).args(arguments).stdin(Stdio::null());
    command.output().expect("sh runs")
}

/// A script that runs a command in the background makes the command and its child processes ignore INT and
/// QUIT.
#[test]
fn servers_of_a_background_script_are_ended() {
    // The variables of the run name servers already, so the test uses variables that are not set.
    let output =
        services("\"$0\" \"$@\" & wait $!", &["--prefix", "SWITCHBOARD_BACKGROUND", "run", "--", "true"]);
    let printed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !printed.contains("not ended"), "{}: {printed}", output.status);
}

#[test]
fn a_command_runs_with_another_clock() {
    if faketime::variables(0).is_none() {
        println!("libfaketime is not installed: no command can run at another time here");
        return;
    }
    let output = services("\"$0\" \"$@\"", &["at", "leap-day", "--", "date", "-u", "+%s %d"]);
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let (at_s, day) = printed.trim().split_once(' ').unwrap_or_else(|| panic!("{output:?}"));
    let expected_s = token::now_s() + Moment::LeapDay.offset_s();
    assert!(at_s.parse::<i64>().unwrap().abs_diff(expected_s) < 60, "{at_s} is not near {expected_s}");
    assert_eq!(day, "29");
}
