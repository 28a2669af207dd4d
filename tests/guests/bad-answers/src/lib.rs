//! Breaks the contract in the way that its caller names: answers that HTTP or a socket cannot carry, texts
//! that look like lines of a log, a secret setting in every place where a handler can put one.

use sdk::{Problem, channels, config, frame, http, log};

struct Guest;
http::export!(Guest);
frame::export!(Guest);

impl http::Handler for Guest {
    fn handle(request: http::Request) -> Result<http::Response, Problem> {
        let mut answer = http::Response::text(200, "{}".to_owned());
        match request.param("how") {
            "status-101" => answer.status = 101,
            "problem-101" => return Err(problem(101, "switching")),
            "problem-200" => return Err(problem(200, "fine")),
            "code" => return Err(problem(404, "Not found\r\n")),
            "many-headers" => answer.headers = vec![("x-a".to_owned(), "1".to_owned()); 32_768],
            "header-name" => answer.headers.push(("x a".to_owned(), "1".to_owned())),
            "header-value" => answer.headers.push(("x-a".to_owned(), "1\r\nset-cookie: a=b".to_owned())),
            "large-body" => answer.body = vec![b'x'; 12 * 1024 * 1024],
            "long-detail" => {
                return Err(Problem { detail: "é".repeat(16 * 1024), ..problem(404, "not_found") });
            }
            "publish" => {
                let publication = channels::Publication::new("topic:x".to_owned(), "no JSON".to_owned());
                answer.body =
                    format!("{{\"said\":{:?}}}", format!("{:?}", channels::publish(&[publication]))).into();
            }
            "log" => {
                let forged = "hi\n2026-11-20T12:00:00Z ERROR forged\r\0\u{202e}\u{1b}[2K\u{2028}";
                log::warn(forged, &[("a b\nc=", forged), ("key", &key())]);
            }
            "secret" => {
                let shown = config::text("shown").unwrap_or_default();
                answer.body = format!("{{\"key\":{:?},\"shown\":{shown:?}}}", key()).into();
            }
            "trap" => panic!("{}", key()),
            _ => {}
        }
        Ok(answer)
    }
}

impl frame::Handler for Guest {
    fn handle(request: frame::Request) -> Result<Option<frame::Reply>, Problem> {
        let how = request.payload()?.text("how")?.unwrap_or_default();
        Ok(Some(match how.as_str() {
            "not-json" => frame::Reply::text("answered", "{},\"id\":7".to_owned()),
            "not-an-object" => frame::Reply::text("answered", "[]".to_owned()),
            "large" => frame::Reply::text("answered", format!("{{\"x\":\"{}\"}}", "x".repeat(300 * 1024))),
            "problem" => return Err(problem(101, "switching")),
            "log" => {
                log::warn("a frame asked for this line", &[]);
                frame::Reply::text("answered", "{}".to_owned())
            }
            _ => frame::Reply::text("answered", "{}".to_owned()),
        }))
    }
}

fn key() -> String {
    config::text("key").unwrap_or_default()
}

fn problem(status: u16, code: &str) -> Problem {
    Problem { status, code: code.to_owned(), ..Problem::internal() }
}
