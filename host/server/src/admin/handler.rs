//! Routes of the application for operators: a handler binds them under `/admin/v1/`. This listener has
//! checked the operator. The handler sees a caller with the role `operator`, which no client's token can
//! have.

use super::{Admin, AdminRequest};
use crate::calls::HttpIn;
use switchboard_contract::types::{Principal, Problem};
use switchboard_http::answers::{self, Answer};
use switchboard_runtime::Load;

impl<L: Load> Admin<L> {
    pub(super) async fn ask_handler(&self, request: AdminRequest) -> Result<Answer, Problem> {
        let id = request.id.clone();
        let response = self.calls.operator(request.for_handler().await?).await?;
        // The runtime has checked status and size.
        Ok(answers::answer(response.status, "application/json", response.body, &id))
    }
}

impl AdminRequest {
    async fn for_handler(mut self) -> Result<HttpIn, Problem> {
        let body = self.read_body().await?;
        let caller = Principal {
            user_id: self.by.name,
            name: None,
            roles: vec!["operator".to_owned()],
            session_id: self.id.to_string(),
        };
        Ok(HttpIn {
            id: self.id,
            method: self.method,
            path: self.path,
            query: self.query,
            headers: vec![("content-type".to_owned(), "application/json".to_owned())],
            body,
            caller: Some(caller),
            groups: Box::default(),
            tester: None,
        })
    }
}
