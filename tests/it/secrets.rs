//! Secrets: every node uses a new value within a second, operators can change `secret` while nodes serve, and
//! a value is found nowhere but in the handlers that are granted it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use switchboard_tests::host::{Host, Options, SECRET};
use switchboard_tests::patience::until;
use switchboard_tests::release::Release;
use switchboard_tests::rest::Rest;
use switchboard_tests::services::{Postgres, Redis};
use switchboard_tests::{paths, services};
use tokio::process::Command;

use crate::traces::Collector;

const PATH: &str = "/api/v1/guests/leaks";
/// It stands at the begin, in the middle and at the end of every value.
const MARK: &str = "s3ntinel7f3a9c01";
/// The secret of the nodes after the change.
const NEW_SECRET: &str = "another secret of the nodes, after operators changed it";

async fn set(host: &Host, name: &str, value: &[u8]) -> String {
    let (code, text) = host.switchboard_fed(&[], value, &["secret", "set", name]).await;
    assert_eq!(code, 0, "{text}");
    text
}

/// The secrets that the guest reads for a call of this user, in hex, in the order of their names.
async fn answered(rest: &Rest) -> Vec<String> {
    let answer = rest.post(&format!("{PATH}/answer"), json!({})).await.expect(200);
    assert_eq!(answer["role"], true, "{answer}");
    serde_json::from_value(answer["values"].clone()).expect("a list of texts")
}

fn hex(value: &[u8]) -> String {
    value.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn a_secret_is_on_every_node_within_a_second() {
    Host::test(Options::default(), async |host| {
        let (second, third) = (host.another_node().await, host.another_node().await);
        let guest = Release::guest("leaks");
        let refused = host.admin.deploy(&guest).await.expect_problem(409, "conflict")["detail"].to_string();
        assert!(refused.contains("ODD_BYTES, PEM, TOKEN, which are not set"), "{refused}");
        for name in ["ODD_BYTES", "PEM", "TOKEN"] {
            let text = set(host, name, b"the first value").await;
            assert!(text.contains("version 1); no running release is granted it"), "{text}");
        }
        host.admin.release(&guest).await;

        let mut took = Vec::new();
        for number in 0..9 {
            let value = format!("value number {number}, with \0 and \u{e4}");
            let begun = Instant::now();
            let text = set(host, "TOKEN", value.as_bytes()).await;
            assert!(text.contains("on 3 nodes; used by leaks"), "{text}");
            took.push(begun.elapsed());
            for node in [&*host, &second, &third] {
                assert_eq!(answered(&node.rest("ana")).await[2], hex(value.as_bytes()), "{number}");
            }
        }
        took.sort();
        println!("a new value is on three nodes after {took:?}, with the command");
        assert!(took[took.len() / 2] < Duration::from_secs(1), "{took:?}");

        let (code, listed) = host.switchboard(&["secret", "list", "--json"]).await;
        assert_eq!(code, 0);
        let token = &listed["secrets"][2];
        assert_eq!(
            (&token["name"], &token["version"], &token["by"]),
            (&json!("TOKEN"), &json!(10), &json!("admin"))
        );
        assert_eq!((&token["bytes"], &token["used_by"]), (&json!(29), &json!(["leaks"])), "{token}");
        for (command, reason) in [
            (&["secret", "remove", "TOKEN"][..], "granted to a release of leaks that runs"),
            (&["secret", "remove", "OTHER"], "no secret OTHER is set"),
            (&["secret", "set", "token"], "`token` is not a name of a secret"),
            (&["secret", "set", "OTHER"], "a secret has 8 to 16384"),
        ] {
            let (code, text) = host.switchboard_fed(&[], b"7 bytes", command).await;
            assert!(code == 1 && text.contains(reason), "{command:?}: {code} {text}");
        }
        let (code, text) = host.switchboard_fed(&[], b"", &["secret", "remove", "TOKEN", "--force"]).await;
        assert!(code == 0 && text.contains("TOKEN is removed on 3 nodes"), "{code} {text}");
        for node in [&*host, &second, &third] {
            assert_eq!(answered(&node.rest("ana")).await.len(), 3, "two secrets and the setting");
        }
        // The operator sees that it is missing.
        let releases = host.admin.rest().get("/admin/v1/releases?handler=leaks").await.expect(200);
        let digest = releases["releases"][0]["release"].as_str().expect("a digest");
        let digest = digest.trim_start_matches("sha256:");
        let missing = "TOKEN is not set, and a release of leaks that runs is granted it";
        for (command, expected, shown) in [
            (&["secret", "list"][..], 0, missing),
            (&["status"], 1, missing),
            (&["inspect", digest], 0, "ODD_BYTES, PEM, TOKEN (not set)"),
        ] {
            let (code, text) = host.switchboard_fed(&[], b"", command).await;
            assert!(code == expected && text.contains(shown), "{command:?}: {code} {text}");
        }
        // The audit has the changes, and no value.
        let audit = host.admin.rest().get("/admin/v1/audit").await.expect(200).to_string();
        assert!(
            audit.contains("POST /admin/v1/secrets/TOKEN/remove")
                && audit.contains("version 10")
                && audit.contains("\"force\""),
            "{audit}"
        );
        assert!(!audit.contains("value number"), "{audit}");
        for mut node in [second, third] {
            node.terminate();
            node.ended().await;
        }
    })
    .await;
}

/// A cluster in which the roles of handlers need their passwords. The file is read by the service user.
async fn cluster_with_passwords(directory: &Path) -> Arc<Postgres> {
    use std::os::unix::fs::PermissionsExt;
    let rules = directory.join("pg_hba.conf");
    let text = "local all all trust\nhost all postgres 127.0.0.1/32 trust\n\
                host all all 127.0.0.1/32 scram-sha-256\n";
    fs::write(&rules, text).expect("a file");
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).expect("a mode");
    Postgres::start(&["fsync = off", &format!("hba_file = '{}'", rules.display())]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_secret_can_be_changed_while_nodes_serve() {
    let directory = tempfile::tempdir().expect("a directory");
    let handlers = directory.path().join("handlers");
    fs::create_dir(&handlers).expect("a directory");
    fs::write(handlers.join("moody.wasm"), Release::guest("moody").bytes).expect("a file");
    // Artifacts of one secret are not valid under another, so the nodes do not share those of other tests.
    let data = |name: &str| directory.path().join(name).display().to_string();
    let options = Options::default().set("HANDLERS_DIR", handlers.display());
    let old = options.clone().set("DATA_DIR", data("old"));
    let both = options.clone().set("DATA_DIR", data("new")).set("SECRET", NEW_SECRET);
    let (both, new) = (both.clone().set("SECRET_PREVIOUS", SECRET), both);

    let database = cluster_with_passwords(directory.path()).await.database().await;
    Host::test_over(database, Redis::start().await, old, async |host| {
        for name in ["ODD_BYTES", "PEM", "TOKEN"] {
            set(host, name, format!("the first value of {name}").as_bytes()).await;
        }
        host.admin.release(&Release::guest("leaks")).await;
        let first = answered(&host.rest("ana")).await;

        // 1. The nodes get both secrets, one after the other.
        let mut second = host.another_node_with(both.clone()).await;
        assert_eq!(answered(&second.rest("ana")).await, first);
        set(&second, "TOKEN", b"set by the node with both").await;
        assert_eq!(answered(&host.rest("ana")).await[2], hex(b"set by the node with both"), "the old node");
        let mut third = host.another_node_with(both.clone()).await;
        let clients = Clients::start([&second, &third]);
        host.terminate();
        assert!(host.ended().await.success());

        // 2. `migrate` sets new passwords, and seals the secrets again.
        let database_url = host.database.url_at(None);
        let app = paths::app_migrations().display().to_string();
        let variables = [
            ("SWITCHBOARD_DATABASE_URL", database_url.as_str()),
            ("SWITCHBOARD_SECRET", NEW_SECRET),
            ("SWITCHBOARD_SECRET_PREVIOUS", SECRET),
        ];
        // The template of the tests is another database of the server, and uses the same roles.
        let others = "select datname::text from pg_database where datname like 'template\\_%'";
        for row in host.database.rows(others).await {
            host.database.run(&format!("drop database {}", row.get::<_, String>(0))).await;
        }
        // Without the secret before, it would leave secrets that no node can read. It changes nothing.
        let (code, text) = host.switchboard_fed(&variables[..2], b"", &["migrate", "--app", &app]).await;
        assert!(code == 1 && text.contains("do not open: ODD_BYTES, PEM, TOKEN. Set"), "{code} {text}");
        assert!(text.contains("--leave-secrets"), "{text}");
        let (code, text) = host.switchboard_fed(&variables, b"", &["migrate", "--app", &app]).await;
        assert!(code == 0 && text.contains("sealed 3 secrets again"), "{code} {text}");
        // Logins from here on need the new password.
        let ended = "select count(pg_terminate_backend(pid)) from pg_stat_activity \
                     where usename like 'switchboard\\_%' and state = 'idle'";
        assert!(host.database.rows(ended).await[0].get::<_, i64>(0) > 0, "no handler was logged in");
        until("calls with new logins", async || clients.answered_more().await).await;
        set(&second, "TOKEN", b"set after the migration").await;
        let expected = [first[0].clone(), first[1].clone(), hex(b"set after the migration"), String::new()];

        // 3. The nodes lose the secret before.
        let mut fourth = host.another_node_with(new.clone()).await;
        assert_eq!(answered(&fourth.rest("ana")).await, expected);
        clients.stop().await;
        for node in [&mut second, &mut third] {
            assert_eq!(answered(&node.rest("ana")).await, expected);
            assert!(!node.log().contains("does not open"), "{}", node.log());
            node.terminate();
            assert!(node.ended().await.success());
        }
        fourth.terminate();
        assert!(fourth.ended().await.success());
    })
    .await;
}

/// Clients that call the guest on two nodes, again and again. Each call needs Postgres.
struct Clients {
    ends: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    tasks: Vec<tokio::task::JoinHandle<Vec<String>>>,
}

impl Clients {
    fn start(nodes: [&Host; 2]) -> Self {
        let (ends, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let one = |node: &Host| {
            let (rest, ends, answered) = (node.rest("ana"), ends.clone(), answered.clone());
            tokio::spawn(async move {
                let mut failed = Vec::new();
                while !ends.load(SeqCst) {
                    let answer = rest.post(&format!("{PATH}/answer"), json!({})).await;
                    if answer.status != 200 {
                        failed.push(answer.to_string());
                    }
                    answered.fetch_add(1, SeqCst);
                }
                failed
            })
        };
        let tasks = nodes.map(one).into();
        Self { ends, answered, tasks }
    }

    /// Some calls that begin now were answered.
    async fn answered_more(&self) -> Option<()> {
        let before = self.answered.load(SeqCst);
        until("further answers", async || (self.answered.load(SeqCst) > before + 8).then_some(())).await;
        Some(())
    }

    async fn stop(self) {
        self.ends.store(true, SeqCst);
        for task in self.tasks {
            let failed = task.await.expect("no panic");
            assert!(failed.is_empty(), "{failed:?}");
        }
        println!("{} calls while the secret changed, none failed", self.answered.load(SeqCst));
    }
}

/// The texts that a value leaves, if it is found: the mark in it, and what simple encodings make of the mark.
fn remains_of_the_mark() -> Vec<String> {
    let mark = MARK.as_bytes();
    let numbers: Vec<String> = mark.iter().map(u8::to_string).collect();
    let mut remains = vec![
        MARK.to_owned(),
        hex(mark),
        hex(mark).to_uppercase(),
        mark.iter().map(|byte| format!("%{byte:02X}")).collect(),
        numbers.join(", "),
        numbers.join(","),
    ];
    // The characters of base64 that the mark alone decides, at each place in a group of three bytes. They are
    // the same in the alphabet for URLs if they have neither + nor /.
    for before in 0..3 {
        let whole = base64(&[&vec![b'x'; before], mark].concat());
        let (begin, end) = ((before * 8).div_ceil(6), (before + mark.len()) * 8 / 6);
        let core = whole[begin..end].to_owned();
        remains.extend([core.replace('+', "-").replace('/', "_"), core]);
    }
    remains
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bit = |at: usize| bytes.get(at / 8).map_or(0, |byte| byte >> (7 - at % 8) & 1);
    let sextet = |at: usize| (at * 6..at * 6 + 6).fold(0_u8, |sextet, at| sextet << 1 | bit(at));
    (0..(bytes.len() * 8).div_ceil(6)).map(|at| char::from(ALPHABET[usize::from(sextet(at))])).collect()
}

/// Fails if the bytes contain a remain of the mark, and shows the place.
fn expect_clean(place: &str, bytes: &[u8]) {
    for remain in remains_of_the_mark() {
        if let Some(at) = bytes.windows(remain.len()).position(|window| window == remain.as_bytes()) {
            let around = &bytes[at.saturating_sub(120)..(at + 160).min(bytes.len())];
            panic!("{place} contains {remain}: …{}…", String::from_utf8_lossy(around));
        }
    }
}

fn files_in(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths.flat_map(|path| if path.is_dir() { files_in(&path) } else { vec![path] }).collect()
}

#[test]
fn the_mark_is_found_in_each_encoding() {
    let value = [b"ana:", MARK.as_bytes(), b"\n"].concat();
    let numbers: Vec<String> = value.iter().map(u8::to_string).collect();
    let written = [
        hex(&value),
        base64(&value),
        base64(&value[1..]),
        base64(&value[2..]),
        numbers.join(", "),
        MARK.into(),
    ];
    for text in written {
        let found = std::panic::catch_unwind(|| expect_clean("it", text.as_bytes()));
        assert!(found.is_err(), "{text}");
    }
    expect_clean("nothing", b"s3ntinel");
}

#[tokio::test]
async fn a_sentinel_is_found_nowhere() {
    let odd: Vec<u8> = (0..=255).collect();
    let backwards: Vec<u8> = (0..=255).rev().collect();
    let mark = MARK.as_bytes();
    let odd_bytes = [mark, &odd, mark, &backwards, mark].concat();
    let pem = format!("-----BEGIN KEY-----\n{MARK}{MARK}\nMIIB+/{MARK}==\n-----END KEY-----\n");
    let token = format!("{MARK}-%/+=&{MARK}");
    // A setting that is not public gets the same care.
    let key = format!("{MARK}\n\"\\'{MARK} \u{e4}\u{20ac}{MARK}");

    let (kept, collector) = (tempfile::tempdir().expect("a directory"), Collector::start().await);
    let options = Options::default()
        .set("RECORDING_DIR", kept.path().display())
        .set("RECORDING_CALLS", "all")
        .set("RECORDING_BODIES", "true")
        .set("OTLP_ENDPOINT", format!("http://{}", collector.address))
        .set("OTLP_SAMPLE", "1.0")
        .set("LOG", "debug")
        .set("HANDLERS__LEAKS__KEY", &key);
    Host::test(options, async |host| {
        let guest = Release::guest("leaks");
        for (name, value) in
            [("ODD_BYTES", &odd_bytes[..]), ("PEM", pem.as_bytes()), ("TOKEN", token.as_bytes())]
        {
            set(host, name, value).await;
        }
        host.admin.release(&guest).await;
        let ana = host.rest("ana");
        let expected = [hex(&odd_bytes), hex(pem.as_bytes()), hex(token.as_bytes()), hex(key.as_bytes())];
        assert_eq!(answered(&ana).await, expected, "what a handler answers is its own affair");
        for (how, status) in [
            ("log", 200),
            ("panic", 500),
            ("problem", 500),
            ("code", 500),
            ("header", 500),
            ("services", 200),
        ] {
            let answer = ana.post(&format!("{PATH}/{how}"), json!({})).await;
            assert_eq!(answer.status, status, "{how}");
            if status != 200 {
                expect_clean("the answer of a failed call", &answer.body);
            }
        }

        // A client types a placeholder. No replay may take it for the secret.
        ana.post(&format!("{PATH}/log"), json!({ "typed": "[secret TOKEN]" })).await.expect(200);

        // A shadow that answers otherwise, with an example.
        let other = guest.with_manifest(|manifest| manifest["config"]["says"] = "other".into());
        host.admin.try_out(&other, "shadow=100").await.expect(200);
        let shadow = until("the shadow to differ", async || {
            answered(&ana).await;
            let seen = host.admin.rest().get("/admin/v1/handlers/leaks/shadow").await.expect(200);
            (seen["shadows"][0]["differing"].as_u64() >= Some(1)).then(|| seen.to_string())
        })
        .await;
        host.admin.rest().post("/admin/v1/handlers/leaks/unshadow", json!({})).await.expect(200);

        // A canary that panics; the recording of its first failure is kept in Postgres.
        let panics = guest.with_manifest(|manifest| manifest["config"]["panics"] = true.into());
        host.admin.try_out(&panics, "canary=50").await.expect(200);
        let withdrawn = until("the canary to be withdrawn", async || {
            for number in 0..20 {
                let user = format!("user-{number}");
                let _ = host.rest(&user).post(&format!("{PATH}/answer"), json!({})).await;
            }
            let history = host.admin.rest().get("/admin/v1/history?handler=leaks").await.expect(200);
            (history["history"][0]["action"] == "withdraw").then(|| history["history"][0].clone())
        })
        .await;
        let path = format!("/admin/v1/history/{}/trace", withdrawn["generation"]);
        let first_failure = host.admin.rest().get(&path).await;

        // Events that it rejects.
        let parked = until("rejected events", async || {
            let word = json!({ "target": "user:eve", "type": "word", "payload": { "word": "hi" } });
            host.publish(word).await.expect(202);
            let (_, answer) = host.switchboard(&["events", "failed", "--json"]).await;
            let events = answer["events"].as_array().cloned().unwrap_or_default();
            (events.len() >= 2).then_some(events)
        })
        .await;
        let log = until("a failed run of the schedule", async || {
            let log = host.log();
            (log.contains("scheduled run failed") && log.contains("parked")).then_some(log)
        })
        .await;
        until("its spans", async || collector.text().contains("secrets.get").then_some(())).await;

        // It was there, and the host has concealed it.
        let recordings: Vec<String> =
            files_in(kept.path()).iter().map(|file| fs::read_to_string(file).expect("a recording")).collect();
        let has = |text: &str, form: &str| assert!(text.contains(form), "no {form} in {text}");
        for form in
            ["[secret TOKEN]", "[secret ODD_BYTES", "[secret PEM", "[secret TOKEN base64 ", "[setting key"]
        {
            has(&log, form);
            assert!(recordings.iter().any(|text| text.contains(form)), "no recording has {form}");
        }
        assert!(recordings.iter().any(|text| text.contains("[literal secret TOKEN]")), "a client typed it");
        for trigger in ["schedule", "event", "http"] {
            let of = |text: &&String| {
                text.contains(&format!("trigger: \"{trigger}\"")) && text.contains("[secret ")
            };
            assert!(recordings.iter().any(|text| of(&text)), "no recording of a {trigger}");
        }
        has(&String::from_utf8_lossy(&first_failure.body), "[secret ");
        has(&shadow, "[secret ");
        parked.iter().for_each(|event| has(event["error"].as_str().unwrap_or_default(), "[secret "));

        // It is found nowhere.
        for file in files_in(kept.path()) {
            expect_clean(&file.display().to_string(), &fs::read(&file).expect("a recording"));
        }
        expect_clean("the recording of the first failure", &first_failure.body);
        expect_clean("the log", host.log().as_bytes());
        expect_clean("the examples of the shadow", shadow.as_bytes());
        expect_clean("the parked events", Value::from(parked.clone()).to_string().as_bytes());
        expect_clean("the metrics", &host.admin.rest().get("/metrics").await.body);
        expect_clean("the spans", collector.text().as_bytes());
        for path in ["secrets", "releases", "history", "nodes", "audit"] {
            expect_clean(path, &host.admin.rest().get(&format!("/admin/v1/{path}")).await.body);
        }
        for (name, bytes) in redis_contents(host).await {
            expect_clean("the name of a key in Redis", name.as_bytes());
            expect_clean(&name, &bytes);
        }
        expect_clean("the dump of the database", &dump(host).await);
        let file = kept.path().join("leaks.wasm");
        fs::write(&file, &guest.bytes).expect("a file");
        let event = kept.path().join("event.json");
        let call = json!({ "http": { "path": format!("{PATH}/answer"), "method": "POST", "caller": "ana" } });
        fs::write(&event, call.to_string()).expect("a file");
        let (file, event) = (file.display().to_string(), event.display().to_string());
        let (database, redis) = (host.database.url_at(None), host.redis.url_at(None));
        let variables = [
            ("SWITCHBOARD_DATABASE_URL", database.as_str()),
            ("SWITCHBOARD_REDIS_URL", redis.as_str()),
            ("SWITCHBOARD_SECRET", SECRET),
            ("SWITCHBOARD_HANDLERS__LEAKS__KEY", key.as_str()),
        ];
        for arguments in
            [vec!["inspect", &file], vec!["invoke", &file, &event, "--real"], vec!["secret", "list"]]
        {
            let (code, text) = host.switchboard_fed(&variables, b"", &arguments).await;
            assert_eq!(code, 0, "{arguments:?}: {text}");
            expect_clean(arguments[0], text.as_bytes());
            assert!(arguments[0] != "invoke" || text.contains("[secret TOKEN]"), "{text}");
        }

        // The world is left as it was found.
        host.admin.retire("leaks").await.expect(200);
        until("no parked events", async || {
            let (_, answer) = host.switchboard(&["events", "failed", "--json"]).await;
            let events = answer["events"].as_array().cloned().unwrap_or_default();
            for event in &events {
                let id = event["id"].as_str().expect("an id");
                host.switchboard(&["events", "drop", id, "--json"]).await;
            }
            events.is_empty().then_some(())
        })
        .await;
    })
    .await;
}

/// All keys in Redis with their contents, in the form of a dump.
async fn redis_contents(host: &Host) -> Vec<(String, Vec<u8>)> {
    // Otherwise a dump may be compressed.
    host.redis.say(&["CONFIG", "SET", "rdbcompression", "no"]).await;
    let client = redis::Client::open(host.redis.url_at(None)).expect("an address");
    let mut connection = client.get_multiplexed_async_connection().await.expect("Redis answers");
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut connection).await.expect("keys");
    assert!(!keys.is_empty(), "the product writes keys");
    let mut contents = Vec::new();
    for key in keys {
        let dumped: Option<Vec<u8>> =
            redis::cmd("DUMP").arg(&key).query_async(&mut connection).await.expect("a dump");
        contents.push((key, dumped.unwrap_or_default()));
    }
    contents
}

async fn dump(host: &Host) -> Vec<u8> {
    let output = Command::new(services::program("pg_dump"))
        .args(["--dbname", &host.database.url_at(None)])
        .output()
        .await
        .expect("pg_dump runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("COPY switchboard.secrets") && text.contains("[secret "), "the dump is whole");
    output.stdout
}
