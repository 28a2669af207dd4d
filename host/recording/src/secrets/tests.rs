//! Values in texts and recordings: they are concealed, and come back in a replay.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::Exchange;

fn settings() -> BTreeMap<String, String> {
    [("key", "s3cret-key"), ("longer", "s3cret-key-and-more"), ("most", "25"), ("pin", "4711")]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

fn of_settings(settings: &BTreeMap<String, String>, public: &[&str]) -> Secrets {
    let public: Vec<String> = public.iter().map(|key| (*key).to_owned()).collect();
    Secrets::new(settings, &public, &BTreeMap::new())
}

fn of_secret(value: &[u8]) -> Secrets {
    let secrets = [("KEY".to_owned(), value.to_vec())].into();
    Secrets::new(&BTreeMap::new(), &[], &secrets)
}

fn exchange(function: &str, args: Value, answer: Value) -> Exchange {
    Exchange { function: function.into(), unordered: false, args, answer: Some(answer), micros: 0 }
}

#[test]
fn values_are_concealed_everywhere_and_come_back_in_a_replay() {
    let secrets = [("TOKEN".to_owned(), b"t0ken\x00\xff\x01of it".to_vec())].into();
    let secrets = Secrets::new(&settings(), &["most".to_owned()], &secrets);
    let value: Vec<u8> = b"t0ken\x00\xff\x01of it".to_vec();
    let recording = Recording {
        handler: "hook".to_owned(),
        release: None,
        call: "c1".to_owned(),
        trigger: "http".to_owned(),
        scenario: None,
        input: json!({ "headers": [["x-key", "s3cret-key"]] }),
        exchanges: vec![
            exchange("config.get", json!({ "key": "most" }), json!("25")),
            exchange("config.get", json!({ "key": "pin" }), json!("4711")),
            exchange("config.get", json!({ "key": "nothing" }), json!(null)),
            exchange("log.log", json!({ "message": "it is s3cret-key-and-more 4711" }), json!(null)),
            exchange("secrets.get", json!({ "name": "TOKEN" }), json!({ "Ok": value })),
            exchange("secrets.get", json!({ "name": "OTHER" }), json!({ "Ok": [1, 2] })),
            exchange("secrets.get", json!({ "name": "NONE" }), json!({ "Err": "Missing" })),
        ],
        left_out: 0,
        outcome: Outcome::Failed { kind: "trap".to_owned(), detail: "bad s3cret-key".to_owned() },
    };
    let mut concealed = recording.clone();
    secrets.conceal_recording(&mut concealed);
    let mut twice = concealed.clone();
    secrets.conceal_recording(&mut twice);
    assert_eq!(concealed, twice);
    let shown = format!("{concealed:?}");
    assert!(!shown.contains("s3cret") && !shown.contains("116"), "{shown}");
    assert_eq!(concealed.exchanges[0].answer, Some(json!("25")), "it is public");
    assert_eq!(concealed.exchanges[1].answer, Some(json!("[setting pin]")));
    assert_eq!(concealed.exchanges[2].answer, Some(json!(null)));
    assert_eq!(concealed.exchanges[3].args["message"], "it is [setting longer] 4711");
    assert_eq!(concealed.exchanges[4].answer, Some(json!({ "Ok": "[secret TOKEN]" })));
    // The release of a node may have lost the grant meanwhile; the answer is no text that could be found.
    assert_eq!(concealed.exchanges[5].answer, Some(json!({ "Ok": "[secret OTHER]" })));
    assert_eq!(concealed.exchanges[6].answer, Some(json!({ "Err": "Missing" })));

    let mut input = concealed.input;
    secrets.reveal(&mut input);
    assert_eq!(input, recording.input);
}

#[test]
fn a_placeholder_that_a_client_typed_never_becomes_the_secret() {
    let secrets = of_secret(b"s3cret-key");
    let typed = json!({ "content": "[secret KEY], [secret KEY hex] and [literal secret KEY]" });
    let raw = Recording {
        handler: "hook".to_owned(),
        release: None,
        call: "c1".to_owned(),
        trigger: "http".to_owned(),
        scenario: None,
        input: typed.clone(),
        exchanges: vec![
            exchange("secrets.get", json!({ "name": "KEY" }), json!({ "Ok": b"s3cret-key" })),
            exchange("redis.command", json!({ "args": ["s3cret-key", "[secret KEY]"] }), typed.clone()),
        ],
        left_out: 0,
        outcome: Outcome::Returned(json!("[secret KEY] s3cret-key")),
    };
    // The release that made the recording may have no secret, and the one that replays it has one.
    for of_recording in [&secrets, &Secrets::default()] {
        let mut kept = raw.clone();
        of_recording.conceal_new_recording(&mut kept);
        let escaped = "[literal secret KEY], [literal secret KEY hex] and [literal literal secret KEY]";
        assert_eq!(kept.input["content"], escaped);
        assert_eq!(kept.exchanges[0].answer, Some(json!({ "Ok": "[secret KEY]" })));
        // A second search for values leaves the escapes.
        let mut twice = kept.clone();
        secrets.conceal_recording(&mut twice);
        assert_eq!(twice.input, kept.input);
        for value in [&mut kept.input, kept.exchanges[1].answer.as_mut().unwrap()] {
            secrets.reveal(value);
            assert_eq!(*value, typed, "it is what the client typed");
        }
    }
    let mut kept = raw.clone();
    secrets.conceal_new_recording(&mut kept);
    assert_eq!(kept.exchanges[1].args["args"], json!(["[secret KEY]", "[literal secret KEY]"]));
    assert_eq!(kept.outcome, Outcome::Returned(json!("[secret KEY] [secret KEY]")));
    secrets.reveal(&mut kept.exchanges[1].args);
    assert_eq!(kept.exchanges[1].args, raw.exchanges[1].args);
    // Values of a test, and then those of its release.
    let mut input = json!("[secret KEY] [literal secret KEY]");
    secrets.reveal_values(&mut input);
    assert_eq!(input, "s3cret-key [literal secret KEY]");
    secrets.reveal(&mut input);
    assert_eq!(input, "s3cret-key [secret KEY]");
}

/// The time must not rise with the square of the length: that is more than half a minute for each text.
#[test]
fn a_long_text_of_placeholders_or_values_takes_a_moment() {
    let secrets = of_secret(b"s3cret-key");
    let begun = std::time::Instant::now();
    for end in ["", "]"] {
        let text = "[setting ".repeat(400_000) + end;
        let mut value = json!(text);
        secrets.reveal(&mut value);
        assert_eq!(value, text);
        secrets.conceal_raw(&mut value);
        secrets.reveal(&mut value);
        assert_eq!(value, text);
    }
    let values = secrets.conceal_text(&"s3cret-key".repeat(400_000)).into_owned();
    assert_eq!(values.len(), "[secret KEY]".len() * 400_000);
    assert!(begun.elapsed() < std::time::Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[test]
fn a_value_inside_a_json_text_is_concealed_in_its_escaped_form() {
    let pem = "-----BEGIN KEY-----\nMIIB\"x\\\n";
    let settings: BTreeMap<_, _> = [("pem".to_owned(), pem.to_owned())].into();
    let secrets = of_settings(&settings, &[]);
    for text in [json!({ "key": pem }).to_string(), format!("no use: {pem:?}")] {
        let mut concealed = json!({ "body": text });
        secrets.conceal(&mut concealed);
        let shown = concealed.to_string();
        assert!(!shown.contains("BEGIN") && shown.contains("[setting pem escaped]"), "{shown}");
        secrets.reveal(&mut concealed);
        assert_eq!(concealed, json!({ "body": text }));
    }
    assert_eq!(secrets.conceal_text(pem), "[setting pem]");
}

#[test]
fn a_setting_in_base64_is_concealed_too() {
    let secrets = of_settings(&settings(), &[]);
    // `printf %s ana:s3cret-key | base64`
    let shown = secrets.conceal_text("authorization: Basic YW5hOnMzY3JldC1rZXk=");
    assert_eq!(shown, "authorization: Basic YW5hOn[setting key base64 1]k=");
}

#[test]
fn a_value_that_is_a_part_of_a_placeholder_is_left_there_and_concealed_elsewhere() {
    let secrets = of_secret(b"secret KEY");
    let once = secrets.conceal_text("the secret KEY!").into_owned();
    assert_eq!(once, "the [secret KEY]!");
    assert_eq!(secrets.conceal_text(&once), once);
    assert_eq!(secrets.conceal_text("[secret KEY] secret KEY]"), "[secret KEY] [secret KEY]]");
}

#[test]
fn of_values_that_begin_alike_the_longest_is_taken() {
    let secrets: BTreeMap<_, _> =
        [("A", "the same beginning, A"), ("B", "the same beginning"), ("C", "the same")]
            .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()))
            .into();
    let secrets = Secrets::new(&BTreeMap::new(), &[], &secrets);
    let text = "the same beginning, A; the same beginning, B; the same begin";
    assert_eq!(secrets.conceal_text(text), "[secret A]; [secret B], B; [secret C] begin");
}

#[test]
fn an_unfinished_placeholder_is_text() {
    let secrets = of_secret(b"s3cret-key");
    for text in ["[secret ", "[setting [secret", "]", "[[secret KEY", "ü[secret X]"] {
        let mut value = json!(text);
        secrets.reveal(&mut value);
        assert_eq!(value, text);
        assert_eq!(secrets.conceal_text(text), text);
    }
}

#[test]
fn a_long_text_of_one_byte_takes_a_moment() {
    // Every place of the text begins like the value, and none contains it.
    let value = [vec![b'a'; 4096], vec![b'b']].concat();
    let secrets = of_secret(&value);
    let text = "a".repeat(64 * 1024);
    assert_eq!(secrets.conceal_text(&text), text);
}

/// Bytes of all kinds, also those that encodings treat specially.
fn values() -> impl Strategy<Value = Vec<u8>> {
    let odd = prop::sample::select(b"\0\n\r\t \"'\\%+/=&<>[]{}$`\x7f\x80\xc3\xa4\xff".to_vec());
    let byte = prop_oneof![odd, any::<u8>(), prop::char::range('0', 'z').prop_map(|c| c as u8)];
    prop::collection::vec(byte, SECRET_BYTES_MIN..48)
}

/// Text around a value. It has no brackets: a begin of a placeholder in it would be ambiguous.
fn around() -> impl Strategy<Value = String> {
    "[^\\[\\]]{0,12}"
}

proptest! {
    #[test]
    fn no_form_of_a_secret_survives(value in values(), before in around(), after in around()) {
        let secrets = of_secret(&value);
        for form in forms::forms(&value) {
            let text = format!("{before}{}{after}", form.text);
            let concealed = secrets.conceal_text(&text).into_owned();
            prop_assert!(!concealed.contains(&form.text), "{}: {concealed}", form.label);
            prop_assert_eq!(secrets.conceal_text(&concealed), concealed.as_str());
            // The value itself may contain brackets, and so the text of a placeholder.
            if !form.text.contains('[') {
                let mut revealed = json!(concealed);
                secrets.reveal(&mut revealed);
                prop_assert_eq!(revealed, json!(text), "{}", form.label);
            }
        }
    }

    #[test]
    fn a_raw_text_comes_back_as_it_was(
        parts in prop::collection::vec(
            prop::sample::select(vec![
                "[", "]", "secret ", "setting ", "literal ", "KEY", " hex", "s3cret-key", "\u{fc}",
            ]),
            0..12,
        ),
    ) {
        let (secrets, text) = (of_secret(b"s3cret-key"), json!(parts.concat()));
        let mut value = text.clone();
        secrets.conceal_raw(&mut value);
        prop_assert!(!value.to_string().contains("s3cret-key"), "{value}");
        secrets.reveal(&mut value);
        prop_assert_eq!(value, text);
    }

    #[test]
    fn what_a_handler_writes_is_concealed(value in values(), user in "[a-z]{1,9}") {
        let secrets = of_secret(&value);
        let text = String::from_utf8_lossy(&value).into_owned();
        let whole = [user.as_bytes(), b":", &value].concat();
        let core = |alignment| {
            let label = format!("base64 {alignment}");
            forms::forms(&value).into_iter().find(|form| form.label == label).map(|form| form.text)
        };
        let basic = base64_of(&whole);
        let written = [
            json!({ "a": { "b": text } }).to_string(),
            format!("{text:?}"),
            format!("{value:?}"),
            whole.iter().map(|byte| format!("{byte:02x}")).collect(),
            text.bytes().map(|byte| format!("{byte:02x}")).collect(),
            whole.iter().map(|byte| format!("%{byte:02X}")).collect::<String>() + "&" + &text,
            basic.clone(),
        ];
        for written in written {
            prop_assert!(secrets.conceal_text(&written).contains("[secret KEY"), "{written}");
        }
        if text.trim().len() >= SECRET_BYTES_MIN {
            let trimmed = base64_of(text.trim().as_bytes());
            prop_assert!(secrets.conceal_text(&trimmed).contains("[secret KEY"), "{trimmed}");
        }
        if let Some(core) = core((user.len() + 1) % 3) {
            prop_assert!(!secrets.conceal_text(&basic).contains(&core));
        }
    }
}

/// An encoder that is not that of `forms`.
fn base64_of(bytes: &[u8]) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let number = group.iter().fold(0_u32, |number, &byte| number << 8 | u32::from(byte))
            << (8 * (3 - group.len()));
        for place in 0..=group.len() {
            text.push(char::from(ALPHABET[(number >> (18 - 6 * place) & 63) as usize]));
        }
        text.push_str(&"=="[..3 - group.len()]);
    }
    text
}

#[test]
fn the_values_of_callers_are_concealed_and_not_revealed() {
    let (first, second) = (of_secret(b"first-s3cret"), of_secret(b"second-s3cret"));
    let own = of_settings(&settings(), &[]);
    let all = own.with(&second.with(&first));
    let text = "first-s3cret, second-s3cret, s3cret-key";
    assert_eq!(all.conceal_text(text), "[secret KEY], [secret KEY], [setting key]");
    assert_eq!(own.conceal_text(text), "first-s3cret, second-s3cret, [setting key]");
    let mut shown = json!("[secret KEY], [setting key]");
    all.reveal(&mut shown);
    assert_eq!(shown, "[secret KEY], s3cret-key");
    // A handler without values of its own conceals those of its callers.
    let none = Secrets::default();
    assert!(none.is_empty() && none.with(&none).is_empty() && !none.with(&first).is_empty());
    let mut input = json!({ "body": { "text": text } });
    none.with(&first).conceal(&mut input);
    assert_eq!(input["body"]["text"], "[secret KEY], second-s3cret, s3cret-key");
}
