//! Rules for the head of a request that hyper leaves to its user (RFC 9112, section 3.2; RFC 9110, section
//! 5.3).

use hyper::header::{AUTHORIZATION, HOST, HeaderName, ORIGIN};
use hyper::http::uri::Authority;
use hyper::{Request, Version};

use switchboard_contract::types::Problem;
use switchboard_protocol::wire::problem::Code;

/// Headers that must not be repeated: two of them could be read in different ways.
const SINGLE: [HeaderName; 3] = [HOST, AUTHORIZATION, ORIGIN];

pub(super) fn check<B>(request: &Request<B>) -> Result<(), Problem> {
    let headers = request.headers();
    for name in SINGLE {
        if headers.get_all(&name).iter().nth(1).is_some() {
            return Err(Code::Malformed.problem(format!("the request has more than one `{name}` header")));
        }
    }
    match headers.get(HOST) {
        None if request.version() < Version::HTTP_11 => Ok(()),
        None => Err(Code::Malformed.problem("the request has no `host` header")),
        Some(host) => {
            // An authority may hold a user and a password; a host must not.
            let is_host = Authority::try_from(host.as_bytes()).is_ok_and(|it| !it.as_str().contains('@'));
            if is_host {
                Ok(())
            } else {
                Err(Code::Malformed
                    .problem("the `host` header is not a host name or address with an optional port"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_names_exactly_one_host() {
        let verdict = |version: Version, headers: &[(&str, &str)]| {
            let mut request = Request::builder().version(version);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            check(&request.body(()).unwrap()).map_err(|problem| problem.detail)
        };
        for host in ["a.example", "a.example:80", "127.0.0.1:8080", "[::1]:8080", "x"] {
            assert_eq!(verdict(Version::HTTP_11, &[("host", host)]), Ok(()), "{host}");
        }
        assert_eq!(verdict(Version::HTTP_10, &[]), Ok(()));
        for bad in ["", "a b", "u:p@a", "a/b", "a:80:80"] {
            assert!(verdict(Version::HTTP_11, &[("host", bad)]).is_err(), "{bad}");
        }
        assert!(verdict(Version::HTTP_11, &[]).unwrap_err().contains("no `host`"));
        for name in ["host", "authorization", "origin"] {
            let twice = [("host", "a"), (name, "a"), (name, "a")];
            assert!(verdict(Version::HTTP_11, &twice).unwrap_err().contains("more than one"), "{name}");
        }
    }
}
