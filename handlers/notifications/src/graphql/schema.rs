//! The GraphQL schema: queries, mutations and the form of a notification. Introspection sees the types only
//! if it is enabled.

use async_graphql::{
    Context, EmptySubscription, Error, ErrorExtensions, ID, Json, Object, Schema, SimpleObject,
};
use sdk::rate::{self, Window};
use sdk::{Id, Problem};
use serde::Deserialize;
use serde_json::Value;

use crate::inbox;
use crate::rules::{LIMIT_DEFAULT, LIMIT_MAX, PageRequest};

/// The complexity of a document. A list of a hundred notifications with every field has about two thousand.
const COMPLEXITY_MAX: usize = 5000;
const DIRECTIVES_MAX: usize = 10;

/// The caller, and whether introspection is enabled.
struct Caller {
    user: String,
    introspection: bool,
}

pub type Notifications = Schema<Query, Mutation, EmptySubscription>;

pub fn of(user: &str, introspection: bool, depth: usize) -> Notifications {
    Schema::build(Query, Mutation, EmptySubscription)
        .data(Caller { user: user.to_owned(), introspection })
        .limit_depth(depth)
        .limit_complexity(COMPLEXITY_MAX)
        .limit_directives(DIRECTIVES_MAX)
        .disable_suggestions()
        .finish()
}

fn is_visible(context: &Context<'_>) -> bool {
    caller(context).introspection
}

fn caller<'a>(context: &Context<'a>) -> &'a Caller {
    context.data_unchecked::<Caller>()
}

pub struct Query;

#[Object(visible = "is_visible")]
impl Query {
    /// The caller's notifications, newest first; `unread` leaves out what was read.
    #[graphql(complexity = "first.unwrap_or(20).clamp(1, 100) as usize * child_complexity")]
    async fn notifications(
        &self,
        context: &Context<'_>,
        first: Option<i64>,
        after: Option<String>,
        unread: Option<bool>,
    ) -> Result<NotificationConnection, Error> {
        let user = &caller(context).user;
        count("list", user, "graphql_lists_per_minute", 100)?;
        let limit = match first {
            None => LIMIT_DEFAULT,
            Some(first) => {
                u64::try_from(first).ok().filter(|first| (1..=LIMIT_MAX).contains(first)).ok_or_else(
                    || refused(Problem::invalid("first", format!("is not between 1 and {LIMIT_MAX}"))),
                )?
            }
        };
        let unread = if unread == Some(true) { Some("true") } else { None };
        // Only the cursor comes from the client, and its name here is `after`.
        let request = PageRequest::parse(unread, None, after.as_deref(), limit)
            .map_err(|_| refused(Problem::invalid("after", "is not one of ours")))?;
        let page = inbox::list(user, &request).map_err(refused)?;
        let nodes =
            page.notifications.iter().map(|text| Notification::read(text)).collect::<Result<Vec<_>, _>>()?;
        Ok(NotificationConnection {
            page_info: PageInfo {
                has_next_page: page.next_cursor.is_some(),
                has_previous_page: request.after.is_some(),
                start_cursor: nodes.first().map(|node| node.id.to_string()),
                end_cursor: nodes.last().map(|node| node.id.to_string()),
            },
            edges: nodes
                .iter()
                .map(|node| NotificationEdge { cursor: node.id.to_string(), node: node.clone() })
                .collect(),
            nodes,
            unread: page.unread,
        })
    }
}

pub struct Mutation;

#[Object(visible = "is_visible")]
impl Mutation {
    /// Marks a notification as read. To repeat it changes nothing.
    async fn mark_notification_read(&self, context: &Context<'_>, id: ID) -> Result<Notification, Error> {
        let user = &caller(context).user;
        count("read", user, "graphql_reads_per_minute", 200)?;
        let marked = inbox::mark_read(user, parse_id(&id)?).map_err(refused)?;
        Notification::read(&marked.notification)
    }

    async fn delete_notification(&self, context: &Context<'_>, id: ID) -> Result<bool, Error> {
        let user = &caller(context).user;
        count("delete", user, "graphql_deletes_per_minute", 100)?;
        inbox::delete(user, parse_id(&id)?).map_err(refused)?;
        Ok(true)
    }
}

#[derive(SimpleObject)]
#[graphql(visible = "is_visible")]
pub struct NotificationConnection {
    edges: Vec<NotificationEdge>,
    nodes: Vec<Notification>,
    page_info: PageInfo,
    /// The number of all unread notifications, not only of this page.
    unread: u64,
}

#[derive(SimpleObject)]
#[graphql(visible = "is_visible")]
pub struct NotificationEdge {
    cursor: String,
    node: Notification,
}

#[derive(SimpleObject)]
#[graphql(visible = "is_visible")]
pub struct PageInfo {
    has_next_page: bool,
    has_previous_page: bool,
    start_cursor: Option<String>,
    end_cursor: Option<String>,
}

#[derive(Clone, Deserialize, SimpleObject)]
#[graphql(visible = "is_visible")]
pub struct Notification {
    id: ID,
    user_id: String,
    #[serde(rename = "type")]
    #[graphql(name = "type")]
    kind: String,
    level: String,
    title: String,
    body: Option<String>,
    entity_type: Option<String>,
    entity_id: Option<String>,
    data: Option<Json<Value>>,
    read_at: Option<String>,
    created_at: String,
}

impl Notification {
    fn read(text: &str) -> Result<Self, Error> {
        serde_json::from_str(text).map_err(|_| refused(Problem::internal()))
    }
}

/// Reads an id. A text that is not an id is answered with `not_found`.
fn parse_id(id: &ID) -> Result<Id, Error> {
    Id::of_path(id.as_str(), "notification").map_err(refused)
}

fn count(what: &str, user: &str, setting: &str, default: u64) -> Result<(), Error> {
    let what = format!("graphql-{what}");
    let window = Window { what: &what, user, most: rate::most(setting, default), window_ms: 60_000 };
    window.count().or_refuse().map_err(refused)
}

/// The GraphQL error for a problem, with the same code as in REST.
fn refused(problem: Problem) -> Error {
    Error::new(problem.detail.clone()).extend_with(|_, extensions| {
        extensions.set("code", problem.code.clone());
        if let Some(field) = &problem.field {
            extensions.set("field", field.clone());
        }
        if let Some(wait_ms) = problem.retry_after_ms {
            extensions.set("retry_after_ms", wait_ms);
        }
    })
}
