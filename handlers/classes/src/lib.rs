//! Classes over REST: create, list one's own, show, change, archive, delete, manage members, join by a code.
//! A member of a class is a participant of its conversation; one transaction changes both.

mod class;
mod rules;
mod state;
mod store;

use chat::invitation;
use class::Class;
use rules::{Changes, Code, Enrolment, Plan};
use sdk::http::{self, Request, Response};
use sdk::{Id, Problem, cursor, rate, text};
use serde_json::Value;

struct Classes;
http::export!(Classes);

impl http::Handler for Classes {
    fn handle(request: Request) -> Result<Response, Problem> {
        match request.endpoint() {
            ("POST", "/api/v1/classes") => create(&request),
            ("GET", "/api/v1/classes") => list(&request),
            ("GET", "/api/v1/classes/{class_id}") => show(&request),
            ("PUT", "/api/v1/classes/{class_id}") => change(&request),
            ("DELETE", "/api/v1/classes/{class_id}") => delete(&request),
            ("GET", "/api/v1/classes/{class_id}/members") => members(&request),
            ("POST", "/api/v1/classes/{class_id}/members") => add(&request),
            ("PATCH", "/api/v1/classes/{class_id}/members/{user_id}") => change_role(&request),
            ("DELETE", "/api/v1/classes/{class_id}/members/{user_id}") => remove(&request),
            ("POST", "/api/v1/classes/join") => join(&request, Code::of_body(request.json()?)?),
            ("GET", "/api/v1/classes/join/{code}") => join(&request, Code::of_path(request.param("code"))?),
            _ => http::unknown_endpoint(&request),
        }
    }
}

fn create(request: &Request) -> Result<Response, Problem> {
    let teacher = &request.caller()?.user_id;
    let plan = Plan::parse(request.json()?)?;
    rate::per_minute("create", teacher, "classes_per_minute", 120)?;
    let id = store::create(&plan, teacher)?;
    if plan.archived {
        let archived = Changes { archived: Some(true), ..Changes::default() };
        Class::lock(id, teacher, teacher)?.change(&archived, teacher)?;
    }
    shown(201, id, teacher)
}

fn list(request: &Request) -> Result<Response, Problem> {
    let user = &request.caller()?.user_id;
    let limit = request.limit(100, 100)?;
    let after = cursor::id(request.query("cursor"))?;
    let found = store::list(user, after, limit)?;
    Ok(page("classes", found, limit))
}

fn show(request: &Request) -> Result<Response, Problem> {
    shown(200, id(request)?, &request.caller()?.user_id)
}

fn change(request: &Request) -> Result<Response, Problem> {
    let by = &request.caller()?.user_id;
    let changes = Changes::parse(request.json()?)?;
    let id = id(request)?;
    let class = Class::lock(id, by, by)?;
    if class.state.change(&changes)? {
        class.change(&changes, by)?;
    }
    shown(200, id, by)
}

fn delete(request: &Request) -> Result<Response, Problem> {
    let by = &request.caller()?.user_id;
    let class = Class::lock(id(request)?, by, by)?;
    class.state.delete()?;
    class.delete(by)?;
    Ok(Response::no_content())
}

fn members(request: &Request) -> Result<Response, Problem> {
    let user = &request.caller()?.user_id;
    let limit = request.limit(rules::MEMBERS_PAGE, rules::MEMBERS_PAGE)?;
    let after = cursor::user(request.query("cursor"))?.unwrap_or_default();
    let found = store::members(id(request)?, user, &after, limit)?;
    Ok(page("members", found, limit))
}

fn add(request: &Request) -> Result<Response, Problem> {
    let by = &request.caller()?.user_id;
    let Enrolment { user_id, role } = Enrolment::parse(request.json()?)?;
    let id = id(request)?;
    invitation::count(by, &user_id)?;
    let class = Class::lock(id, by, &user_id)?;
    if class.state.add()?.is_done() {
        return answer(200, &class.member(&user_id)?);
    }
    answer(201, &class.enrol(&user_id, role, by)?)
}

fn change_role(request: &Request) -> Result<Response, Problem> {
    let by = &request.caller()?.user_id;
    let role = rules::role(request.json()?)?;
    let user = person(request)?;
    let class = Class::lock(id(request)?, by, user)?;
    if class.state.change_role(role)?.is_done() {
        return answer(200, &class.member(user)?);
    }
    answer(200, &class.change_role(user, role, by)?)
}

fn remove(request: &Request) -> Result<Response, Problem> {
    let by = &request.caller()?.user_id;
    let user = person(request)?;
    let class = Class::lock(id(request)?, by, user)?;
    let role = class.state.remove()?;
    class.withdraw(user, role, by)?;
    Ok(Response::no_content())
}

fn join(request: &Request, code: Code) -> Result<Response, Problem> {
    let user = &request.caller()?.user_id;
    // A code is short, so many attempts could guess one.
    rate::per_minute("code", user, "codes_per_minute", 20)?;
    let id = store::find(&code)?;
    let class = Class::lock(id, user, user)?;
    let conversation = class.conversation.id;
    if !class.state.join()?.is_done() {
        class.enrol(user, rules::Role::Student, user)?;
    }
    let class = store::class(id, user)?;
    Ok(Response::text(200, format!(r#"{{"class":{class},"conversation_id":"{conversation}"}}"#)))
}

fn shown(status: u16, id: Id, user: &str) -> Result<Response, Problem> {
    Ok(Response::text(status, format!(r#"{{"class":{}}}"#, store::class(id, user)?)))
}

fn answer(status: u16, member: &str) -> Result<Response, Problem> {
    Ok(Response::text(status, format!(r#"{{"member":{member}}}"#)))
}

/// A page of entries, each with its cursor and JSON. `found` has one entry more than `limit` if there is a
/// next page.
fn page(plural: &str, mut found: Vec<(String, String)>, limit: u64) -> Response {
    let more = found.len() as u64 > limit;
    found.truncate(limit as usize);
    let next = found.last().filter(|_| more).map_or(Value::Null, |(cursor, _)| Value::from(cursor.as_str()));
    let texts: Vec<_> = found.into_iter().map(|(_, text)| text).collect();
    Response::text(200, format!(r#"{{"{plural}":[{}],"next_cursor":{next}}}"#, texts.join(",")))
}

fn id(request: &Request) -> Result<Id, Problem> {
    request.param_id("class_id", "class")
}

/// The user of the path. A text that is not a user id is answered with `not_found`.
fn person(request: &Request) -> Result<&str, Problem> {
    let user = request.param("user_id");
    if text::is_user_id(user) { Ok(user) } else { Err(Problem::not_found("member")) }
}
