//! HTTPS and WSS: the protocol over TLS, certificates that change while clients stay, and clients that speak
//! something else.

use std::fs::File;
use std::io::Write;
use std::time::{Duration, Instant, SystemTime};

use serde_json::json;
use switchboard_tests::client::Client;
use switchboard_tests::host::{Host, Options};
use switchboard_tests::patience::until;
use switchboard_tests::rest::Rest;
use switchboard_tests::services;
use switchboard_tests::socket::Handshake;
use switchboard_tests::tls::{Certificate, Door};
use switchboard_tests::token::Token;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn with_tls(directory: &TempDir) -> Options {
    Options::default()
        .set("TLS_CERT", directory.path().join("cert.pem").display())
        .set("TLS_KEY", directory.path().join("key.pem").display())
}

fn files(certificate: &Certificate) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    certificate.write(directory.path());
    directory
}

#[tokio::test]
async fn the_protocol_is_the_same_over_tls() {
    let certificate = Certificate::make();
    let directory = files(&certificate);
    Host::test(with_tls(&directory).without_rate_limits(), async |host| {
        let door = Door::to(host.address, &certificate).await;
        let ana_rest = Rest::new(door.address, Token::of("ana").sign());
        let body = json!({"type": "group", "name": "tls", "members": ["bo"]});
        let made = ana_rest.post("/api/v1/conversations", body).await.expect(201);
        let conversation = made["conversation"]["id"].as_str().unwrap().to_owned();

        // Each is parked for a while, among other idle connections.
        let mut idle = Vec::new();
        for number in 0..60 {
            idle.push(Client::sign_in(door.address, &format!("idle-{number}")).await);
        }
        let mut ana = Client::sign_in(door.address, "ana").await;
        let mut bo = Client::sign_in(door.address, "bo").await;
        ana.enter(&conversation).await;
        bo.enter(&conversation).await;
        for number in 0..100 {
            let text = format!("{number} {}", "ü".repeat(1500));
            ana.send(&text).await.expect_sent();
            bo.expect_message(&text).await;
        }
        // More bytes than the socket and TLS buffer, to a client that does not read meanwhile.
        for number in 0..100 {
            ana.send(&format!("unread {number} {}", "x".repeat(1900))).await.expect_sent();
        }
        for number in 0..100 {
            let push = bo.expect("message.new").await;
            let content = push["message"]["content"].as_str().unwrap();
            assert!(content.starts_with(&format!("unread {number} ")), "{content:.20}");
        }
        for client in &mut idle {
            client.expect_alive().await;
        }
        // A close frame arrives complete, after the earlier frames.
        host.admin.rest().post("/admin/v1/disconnect", json!({"user_id": "bo"})).await.expect(202);
        assert_eq!(bo.expect_close().await, 4003);
        // Larger than one TLS record, in both directions.
        ana.write_text(&format!(r#"{{"type":"ping","id":1,"payload":{{"pad":"{}"}}}}"#, "x".repeat(60_000)))
            .await;
        ana.reply_to(&json!(1)).await.expect("pong");
        ana.write_text(&"x".repeat(70_000)).await;
        assert_eq!(ana.expect_close().await, 1009);
    })
    .await;
}

#[tokio::test]
async fn a_silent_client_over_tls_is_closed_too() {
    let certificate = Certificate::make();
    let directory = files(&certificate);
    let options = with_tls(&directory).set("IDLE_MS", 1_500).set("AUTH_WAIT_MS", 300);
    Host::test(options, async |host| {
        let door = Door::to(host.address, &certificate).await;
        let (mut nobody, _) = Client::connect(door.address, &Handshake::bare()).await.unwrap();
        let mut ana = Client::sign_in(door.address, "ana").await;
        assert_eq!(nobody.expect_close().await, 4001);
        assert_eq!(ana.expect_close().await, 4010);
    })
    .await;
}

#[tokio::test]
async fn a_client_that_does_not_read_over_tls_is_closed_too() {
    let certificate = Certificate::make();
    let directory = files(&certificate);
    let options = with_tls(&directory).without_rate_limits().set("STALL_MS", 500);
    Host::test(options, async |host| {
        let door = Door::to(host.address, &certificate).await;
        let rest = Rest::new(door.address, Token::of("ana").sign());
        let body = json!({"type": "group", "name": "tls", "members": ["bo"]});
        let made = rest.post("/api/v1/conversations", body).await.expect(201);
        let room = made["conversation"]["id"].as_str().unwrap();
        let (mut ana, mut bo) =
            (Client::sign_in(door.address, "ana").await, Client::sign_in(door.address, "bo").await);
        ana.enter(room).await;
        bo.enter(room).await;
        // From here on bo does not read. The buffers of the kernel and of TLS fill, and then the queue.
        let (text, begin) = ("€".repeat(2000), Instant::now());
        while host.admin.metric("switchboard_connections_closed_total").await < Some(1.0) {
            assert!(begin.elapsed() < Duration::from_secs(60), "never closed");
            for _ in 0..200 {
                ana.send(&text).await.expect_sent();
            }
            ana.clear_buffered();
        }
        drop(bo);
        ana.expect_alive().await;
        let metrics = host.admin.rest().get("/metrics").await;
        let text = String::from_utf8_lossy(&metrics.body).into_owned();
        assert!(text.contains("code=\"4008\""), "closed, but not for that");
    })
    .await;
}

#[tokio::test]
async fn a_certificate_is_changed_while_clients_stay() {
    let (old, new) = (Certificate::make(), Certificate::make());
    let directory = files(&old);
    Host::test(with_tls(&directory), async |host| {
        let door = Door::to(host.address, &old).await;
        let mut ana = Client::sign_in(door.address, "ana").await;
        assert!(new.connect(host.address).await.is_err(), "it shows the new one already");

        new.write(directory.path());
        until("the new certificate to be shown", async || {
            new.connect(host.address).await.is_ok().then_some(())
        })
        .await;
        assert!(old.connect(host.address).await.is_err());
        ana.expect_alive().await;
        let new_door = Door::to(host.address, &new).await;
        Client::sign_in(new_door.address, "bo").await.expect_alive().await;

        // A certificate without its key, then an invalid file: the old certificate stays.
        let stray = files(&Certificate::make());
        std::fs::copy(stray.path().join("cert.pem"), directory.path().join("cert.pem")).unwrap();
        until("the mismatch to be noticed", async || {
            host.log().contains("the old certificate stays in use").then_some(())
        })
        .await;
        assert!(new.connect(host.address).await.is_ok());
        std::fs::write(directory.path().join("key.pem"), "nonsense").unwrap();
        until("the nonsense to be noticed", async || {
            (host.log().matches("the old certificate stays in use").count() > 1).then_some(())
        })
        .await;
        assert!(new.connect(host.address).await.is_ok());
        ana.expect_alive().await;
        // Then a valid pair again.
        old.write(directory.path());
        until("the pair to be shown", async || old.connect(host.address).await.is_ok().then_some(())).await;
    })
    .await;
}

/// An obstacle may not change a file's metadata: a permission, or a write within one tick of the clock.
#[tokio::test]
async fn an_unreadable_certificate_is_read_again_later() {
    let (old, new) = (Certificate::make(), Certificate::make());
    let directory = files(&old);
    let path = directory.path().join("cert.pem");
    Host::test(with_tls(&directory), async |host| {
        // Written in place, so that number, length and time of the file stay the same.
        let apart = files(&new);
        let whole = std::fs::read(apart.path().join("cert.pem")).unwrap();
        let modified = SystemTime::now();
        std::fs::remove_file(&path).unwrap();
        let write = |bytes: &[u8]| {
            let mut file = File::options().create(true).truncate(false).write(true).open(&path).unwrap();
            file.write_all(bytes).unwrap();
            file.set_modified(modified).unwrap();
        };
        write(&vec![b'x'; whole.len()]);
        std::fs::copy(apart.path().join("key.pem"), directory.path().join("key.pem")).unwrap();
        until("the nonsense to be noticed", async || {
            (host.log().matches("no certificate in PEM").count() > 0).then_some(())
        })
        .await;
        write(&whole);
        until("the whole one to be shown", async || new.connect(host.address).await.is_ok().then_some(()))
            .await;
    })
    .await;
}

/// The test waits for the real time-out of the silent client: ten seconds.
#[tokio::test]
async fn a_client_without_tls_is_refused_and_affects_no_other() {
    let certificate = Certificate::make();
    let directory = files(&certificate);
    Host::test(with_tls(&directory), async |host| {
        let mut silent = TcpStream::connect(host.address).await.unwrap();
        for nonsense in [&b"GET /ws HTTP/1.1\r\nhost: x\r\n\r\n"[..], &[0; 1000], b"\x16\x03\x01\xff\xff"] {
            let mut stream = TcpStream::connect(host.address).await.unwrap();
            stream.write_all(nonsense).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut answer = Vec::new();
            // The client gets a TLS alert, or the connection ends.
            let _ = stream.read_to_end(&mut answer).await;
            assert!(!answer.starts_with(b"HTTP"), "answered plainly: {}", String::from_utf8_lossy(&answer));
        }
        let door = Door::to(host.address, &certificate).await;
        Client::open(door.address, "ana", &Handshake::bearer(&Token::of("ana").sign()))
            .await
            .expect_alive()
            .await;
        let mut answer = Vec::new();
        silent.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"");
        until("every handshake to be counted", async || {
            (host.admin.metric("switchboard_tls_handshakes_total").await >= Some(5.0)).then_some(())
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn an_unusable_certificate_is_a_setting_error() {
    let (directory, other) = (files(&Certificate::make()), files(&Certificate::make()));
    let database = services::database().await;
    for (options, complaint) in [
        (with_tls(&directory).set("TLS_KEY", other.path().join("key.pem").display()), "cannot be used"),
        (
            with_tls(&directory).set("TLS_KEY", directory.path().join("cert.pem").display()),
            "no private key in PEM",
        ),
        (with_tls(&directory).set("TLS_CERT", "nowhere.pem"), "nowhere.pem"),
        (Options::default().set("TLS_CERT", directory.path().join("cert.pem").display()), "must both be set"),
    ] {
        let redis = services::Redis::start().await;
        let mut host = Host::over(database.clone(), redis, options).await;
        host.spawn();
        assert!(!host.ended().await.success());
        assert!(
            host.log().contains("tls: ") && host.log().contains(complaint),
            "{complaint}: {}",
            host.log()
        );
    }
    database.drop_it().await;
}
