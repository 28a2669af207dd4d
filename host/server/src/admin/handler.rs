//! What the application offers to operators: a route that a handler binds under `/admin/v1/`. The operator was admitted
//! here; the handler sees a caller with the role `operator`, which no token of a client can reach it with.

use super::{Admin, Asked};
use crate::contract::types::{Principal, Problem};
use crate::releases::Load;
use crate::triggers::HttpIn;
use crate::wire::http::{self, Answer};

impl<L: Load> Admin<L> {
    pub(super) async fn ask_handler(&self, asked: Asked) -> Result<Answer, Problem> {
        let id = asked.id.clone();
        let response = self.handlers.ask(asked.for_handler().await?).await?;
        // The runtime has checked status and size.
        Ok(http::answer(response.status, "application/json", response.body, &id))
    }
}

impl Asked {
    async fn for_handler(mut self) -> Result<HttpIn, Problem> {
        let body = self.read_body().await?;
        let caller = Principal {
            user_id: self.by.name,
            name: None,
            roles: vec!["operator".to_owned()],
            session_id: self.id.clone(),
        };
        Ok(HttpIn {
            id: self.id,
            method: self.method,
            path: self.path,
            query: self.query,
            headers: vec![("content-type".to_owned(), "application/json".to_owned())],
            body,
            caller: Some(caller),
        })
    }
}
