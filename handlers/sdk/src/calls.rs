//! Call other handlers, which `grants.calls` of the manifest names. `wit/calls.wit`. The time of a call
//! counts towards the deadline of this one.
//!
//! ```ignore
//! match calls::json::<Profile>("directory", "profile", &json!({ "id": user })) {
//!     Ok(profile) => …,
//!     Err(calls::Error::Problem(problem)) if problem.code == "not_found" => …,
//!     Err(error) => return Err(calls::problem_of(error)),
//! }
//! ```

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Problem;
use crate::bindings::platform::switchboard::host::calls;
pub use calls::Error;

/// Calls a method of another handler with these bytes.
pub fn call(handler: &str, method: &str, body: &[u8]) -> Result<Vec<u8>, Error> {
    calls::call(handler, method, body)
}

/// Calls a method that takes JSON and answers in JSON. An answer that is not the expected JSON is
/// `unknown-outcome`, because the called handler has done its work.
pub fn json<T: DeserializeOwned>(handler: &str, method: &str, body: &impl Serialize) -> Result<T, Error> {
    let body = serde_json::to_vec(body).expect("plain data becomes JSON");
    read(handler, &call(handler, method, &body)?)
}

fn read<T: DeserializeOwned>(handler: &str, answer: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(answer)
        .map_err(|error| Error::UnknownOutcome(format!("`{handler}` answered unexpected JSON: {error}")))
}

impl Error {
    /// Whether nothing ran, so that the same call can be made again without a second effect.
    pub fn nothing_ran(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::Busy | Self::Unavailable(_))
    }
}

/// A text for the log.
pub fn describe(error: &Error) -> String {
    match error {
        Error::Refused(why) => format!("refused: {why}"),
        Error::Busy => "busy: no free call slot of the called handler".to_owned(),
        Error::Unavailable(why) => format!("unavailable: {why}"),
        Error::Problem(problem) => format!("problem: {} {}", problem.status, problem.code),
        Error::UnknownOutcome(why) => format!("outcome unknown: {why}"),
    }
}

/// The answer for the client of a handler that cannot go on without the call. A problem of the called handler
/// goes to the client as it is. The other errors are logged, because the client does not learn the cause.
pub fn problem_of(error: Error) -> Problem {
    match error {
        Error::Problem(problem) => problem,
        Error::Busy | Error::Unavailable(_) | Error::UnknownOutcome(_) => {
            crate::log::error("another handler did not answer", &[("error", &describe(&error))]);
            Problem::unavailable()
        }
        Error::Refused(_) => {
            crate::log::error("a call of another handler was refused", &[("error", &describe(&error))]);
            Problem::internal()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_or_its_outcome_is_unknown() {
        assert_eq!(read::<Vec<u8>>("directory", b"[1]"), Ok(vec![1]));
        let error = read::<String>("directory", b"[1]").unwrap_err();
        assert!(!error.nothing_ran() && describe(&error).contains("unexpected JSON"), "{error:?}");
        assert!(Error::Busy.nothing_ran() && Error::Refused(String::new()).nothing_ran());
    }

    #[test]
    fn a_problem_of_the_called_handler_reaches_the_client() {
        let problem = Problem::not_found("person");
        assert_eq!(problem_of(Error::Problem(problem.clone())), problem);
    }
}
