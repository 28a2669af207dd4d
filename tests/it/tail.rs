//! `switchboard tail`: an operator at one node sees the calls of another.

use serde_json::json;
use switchboard_tests::host::{Host, Options};
use switchboard_tests::release::Release;

#[tokio::test]
async fn an_operator_at_one_node_sees_a_panic_on_another() {
    Host::test(Options::default(), async |host| {
        let other = host.another_node().await;
        host.admin.release(&Release::guest("trap")).await;
        let mut watch = vec!["tail", "trap", "--failed", "--events", "1", "--json"];
        let (code, event) = tokio::select! {
            seen = host.switchboard(&watch) => seen,
            // The watch begins some time after the command.
            () = async { loop {
                other.rest("eve").post("/api/v1/guests/trap", json!({})).await;
            } } => unreachable!("it calls until the operator has seen a call"),
        };
        assert_eq!(code, 0, "{event}");
        assert_eq!((&event["kind"], &event["handler"]), (&json!("call"), &json!("trap")), "{event}");
        assert_eq!((&event["outcome"], &event["trigger"]), (&json!("trap"), &json!("http")), "{event}");
        let failure = event["failure"].as_str().unwrap_or_default();
        assert!(failure.starts_with("panic: on purpose, in "), "{event}");

        watch[1] = "tarp";
        let (code, refusal) = host.switchboard(&watch).await;
        assert_eq!(code, 1, "{refusal}");
        assert!(refusal["error"].as_str().unwrap_or_default().contains("`tarp`"), "{refusal}");
    })
    .await;
}
