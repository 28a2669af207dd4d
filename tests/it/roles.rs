//! Two databases on one server with different secrets: `migrate` takes a role away from the other database
//! only if the operator passes `--take-roles`.

use std::process::{Output, Stdio};

use switchboard_tests::host::SECRET;
use switchboard_tests::paths;
use switchboard_tests::services::{Database, Postgres};
use tokio::process::Command;

const OTHER_SECRET: &str = "another secret, of more than thirty-two characters";

/// Runs `switchboard migrate` on the database with this name.
async fn migrate(server: &Database, name: &str, secret: &str, arguments: &[&str]) -> Output {
    let url = server.url_at(None);
    let (address, _) = url.rsplit_once('/').expect("a database in the URL");
    Command::new(paths::switchboard())
        .arg("migrate")
        .args(arguments)
        .env("SWITCHBOARD_DATABASE_URL", format!("{address}/{name}"))
        .env("SWITCHBOARD_SECRET", secret)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .expect("the command runs")
}

fn expect_success(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn expect_refusal(output: &Output, owner: &str) {
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{complaint}");
    let (_, owners) = complaint.split_once("another database of this server (").expect("an owner is named");
    let (owners, _) = owners.split_once(')').expect("the list of owners ends");
    assert!(owners.split(", ").any(|name| name == owner), "{owner} is not in `{owners}`");
    assert!(complaint.contains("--take-roles"), "{complaint}");
}

#[tokio::test]
async fn migrate_takes_roles_from_another_database_only_with_the_flag() {
    let server = Postgres::start(&["fsync = off"]).await.database().await;
    let connection = server.connect().await;
    for name in ["first", "second"] {
        connection.run(&format!("create database {name}")).await;
    }
    expect_success(&migrate(&server, "first", SECRET, &[]).await);
    expect_refusal(&migrate(&server, "second", OTHER_SECRET, &[]).await, "first");
    expect_success(&migrate(&server, "second", OTHER_SECRET, &["--take-roles"]).await);
    // Now the roles have the passwords of the second secret.
    expect_refusal(&migrate(&server, "first", SECRET, &[]).await, "second");
    expect_success(&migrate(&server, "first", OTHER_SECRET, &[]).await);
    drop(connection);
    server.drop_it().await;
}
