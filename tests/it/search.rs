//! Full-text search: the found messages, their order, the snippets, and the permissions.

use serde_json::{Value, json};
use switchboard_tests::host::{Host, Options};
use switchboard_tests::rest::Rest;

const CONVERSATIONS: &str = "/api/v1/conversations";

fn encoded(text: &str) -> String {
    text.bytes()
        .map(
            |byte| {
                if byte.is_ascii_alphanumeric() {
                    char::from(byte).to_string()
                } else {
                    format!("%{byte:02X}")
                }
            },
        )
        .collect()
}

async fn send(rest: &Rest, room: &str, content: &str) -> Value {
    let sent = rest.post(&format!("{CONVERSATIONS}/{room}/messages"), json!({"content": content})).await;
    sent.expect(201)["message"].clone()
}

async fn search_in(rest: &Rest, room: &str, words: &str) -> Vec<Value> {
    let found = rest.get(&format!("{CONVERSATIONS}/{room}/search?q={}", encoded(words))).await.expect(200);
    found["results"].as_array().expect("a list of results").clone()
}

async fn search(rest: &Rest, words: &str) -> Vec<Value> {
    let found = rest.get(&format!("/api/v1/search?q={}", encoded(words))).await.expect(200);
    found["results"].as_array().expect("a list of results").clone()
}

fn contents(results: &[Value]) -> Vec<&str> {
    results.iter().map(|result| result["message"]["content"].as_str().expect("a text")).collect()
}

#[tokio::test]
async fn words_are_found_with_and_without_their_marks() {
    Host::test(Options::default().without_rate_limits(), async |host| {
        let room = host.group("lobby", &["ana", "bo"]).await;
        let ana = host.rest("ana");
        for content in [
            "con đường dài",
            "con duong dai",
            "đồ ăn tô nổ",
            "Ăn trưa ở ĐÂU?",
            "còn đương",
            "hello there",
            "hello again",
        ] {
            send(&ana, &room, content).await;
        }
        let bo = host.rest("bo");
        for (words, expected) in [
            // First messages with both words exact, then with one, then with none.
            ("con duong", vec!["con duong dai", "con đường dài", "còn đương"]),
            ("con đường", vec!["con đường dài", "con duong dai", "còn đương"]),
            ("CON ĐƯỜNG", vec!["con đường dài", "con duong dai", "còn đương"]),
            // The same text in decomposed form.
            ("con đu\u{31b}o\u{31b}\u{300}ng", vec!["con đường dài", "con duong dai", "còn đương"]),
            // For equal matches, the newer message comes first.
            ("hello", vec!["hello again", "hello there"]),
            ("do an to no", vec!["đồ ăn tô nổ"]),
            ("to no", vec!["đồ ăn tô nổ"]),
            ("an trua o dau", vec!["Ăn trưa ở ĐÂU?"]),
            ("dài con", vec!["con đường dài", "con duong dai"]),
            ("xa lạ", vec![]),
            ("con lạ", vec![]),
            // A query without words finds nothing, and causes no error.
            ("!!! %_*", vec![]),
            ("👍", vec![]),
            ("' or 1=1 --", vec![]),
            ("a & ! | ( <-> :*", vec![]),
        ] {
            assert_eq!(contents(&search_in(&bo, &room, words).await), expected, "{words}");
            assert_eq!(contents(&search(&bo, words).await), expected, "{words} in all");
        }
        let ranked = search(&bo, "con đường").await;
        let ranks: Vec<f64> =
            ranked.iter().map(|result| result["rank"].as_f64().expect("a number")).collect();
        assert!(ranks[0] > ranks[1] && ranks[1] > ranks[2], "{ranks:?}");
        assert_eq!(ranked[0]["message"]["conversation_id"], *room);
        assert_eq!(ranked[0]["message"]["sender_id"], "ana");
        let one = bo.get("/api/v1/search?q=con&limit=1").await.expect(200);
        assert_eq!(one["results"].as_array().unwrap().len(), 1);
    })
    .await;
}

/// Punctuation separates words, marks on letters are ignored, and in scripts without spaces every part is a
/// word.
#[tokio::test]
async fn words_are_found_within_punctuation_marks_and_scripts_without_spaces() {
    Host::test(Options::default().without_rate_limits(), async |host| {
        let room = host.group("lobby", &["ana"]).await;
        let ana = host.rest("ana");
        for (content, words, marked) in [
            ("thầy/cô giáo", "co", "thầy/<mark>cô</mark> giáo"),
            ("lớp CS-101 sáng", "101", "lớp CS-<mark>101</mark> sáng"),
            ("hạn 2026-12-24 nhé", "24", "hạn 2026-12-<mark>24</mark> nhé"),
            ("xem baitap.docx", "baitap", "xem <mark>baitap</mark>.docx"),
            (
                "http://a.example/vo_toan?trang=7",
                "vo toan 7",
                "http://a.example/<mark>vo</mark>_<mark>toan</mark>?trang=<mark>7</mark>",
            ),
            ("hoa.tran@school.example", "tran school", "hoa.<mark>tran</mark>@<mark>school</mark>.example"),
            ("مُحَمَّد هنا", "محمد", "<mark>مُحَمَّد</mark> هنا"),
            ("ο δρόμος", "ΔΡΟΜΟΣ", "ο <mark>δρόμος</mark>"),
            ("我要搜索词吗", "搜索词", "我要<mark>搜索词</mark>吗"),
            ("他在图书馆", "馆", "他在图书<mark>馆</mark>"),
            ("明日は東京タワーへ", "東京", "明日は<mark>東京</mark>タワーへ"),
            ("ฉันกินข้าวแล้ว", "ข้าว", "ฉันกิน<mark>ข้าว</mark>แล้ว"),
            ("서울에서 만나요", "서울", "<mark>서울</mark>에서 만나요"),
        ] {
            send(&ana, &room, content).await;
            let results = search_in(&ana, &room, words).await;
            assert_eq!(contents(&results), [content], "{words}");
            assert_eq!(results[0]["snippet"], marked, "{words}");
        }
        for words in ["docx.baitap.pdf", "索要", "東タ", "CS-102"] {
            assert!(search_in(&ana, &room, words).await.is_empty(), "{words}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_snippet_is_safe_html_with_its_hits_marked() {
    Host::test(Options::default().without_rate_limits(), async |host| {
        let room = host.group("lobby", &["ana"]).await;
        let ana = host.rest("ana");
        let long = format!("{} giữa con đường {}", "trước ".repeat(100), "sau ".repeat(100));
        for content in [
            "đường <b onclick=\"x()\">đi</b> & <script>alert('về')</script>",
            "<mark>giả</mark> thật",
            "ở giữa &lt;i&gt; này",
            &long,
        ] {
            send(&ana, &room, content).await;
        }
        let snippet = async |words: &str| {
            let results = search_in(&ana, &room, words).await;
            results[0]["snippet"].as_str().expect("a text").to_owned()
        };
        assert_eq!(
            snippet("duong di").await,
            "<mark>đường</mark> &lt;b onclick=&quot;x()&quot;&gt;<mark>đi</mark>&lt;/b&gt; &amp; \
             &lt;script&gt;alert(&#39;về&#39;)&lt;/script&gt;"
        );
        assert_eq!(snippet("thật").await, "&lt;mark&gt;giả&lt;/mark&gt; <mark>thật</mark>");
        assert_eq!(snippet("nay").await, "ở giữa &amp;lt;i&amp;gt; <mark>này</mark>");
        let cut = snippet("con duong").await;
        assert!(cut.contains("<mark>con</mark> <mark>đường</mark>") && cut.len() < 400, "{cut}");
        for words in ["đi", "giả", "duong", "con"] {
            let rest = snippet(words).await.replace("<mark>", "").replace("</mark>", "");
            assert!(!rest.contains(['<', '>', '"', '\'']), "{rest}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_search_finds_only_conversations_of_the_caller() {
    Host::test(Options::default().without_rate_limits(), async |host| {
        let (ours, theirs) = (host.group("ours", &["ana", "bo"]).await, host.group("theirs", &["ana"]).await);
        let ana = host.rest("ana");
        let kept = send(&ana, &ours, "bí mật của chúng ta").await;
        send(&ana, &theirs, "bí mật của riêng ana").await;
        let bo = host.rest("bo");
        assert_eq!(contents(&search(&bo, "bi mat").await), ["bí mật của chúng ta"]);
        assert_eq!(search(&ana, "bi mat").await.len(), 2);
        assert_eq!(search(&host.rest("eve"), "bi mat").await, Vec::<Value>::new());
        for room in [&theirs, "019a9fd9-277b-7fff-bfff-ffffffffffff", "no-such-slug", "x y"] {
            let path = format!("{CONVERSATIONS}/{}/search?q=x", encoded(room));
            bo.get(&path).await.expect_problem(404, "not_found");
        }

        // The result is cached, but shows only messages that the user may see now.
        let connection = host.database.connect().await;
        let id = kept["id"].as_str().unwrap();
        connection
            .run(&format!("update app.messages set content = 'lộ rồi, bí mật' where id = '{id}'"))
            .await;
        assert_eq!(contents(&search(&bo, "bi mat").await), ["lộ rồi, bí mật"]);
        connection.run(&format!("update app.messages set content = 'khác hẳn' where id = '{id}'")).await;
        assert!(search(&bo, "bi mat").await.is_empty());
        connection.run(&format!("update app.messages set content = 'bí mật' where id = '{id}'")).await;
        assert_eq!(contents(&search_in(&bo, &ours, "bi mat").await), ["bí mật"]);
        connection.run(&format!("update app.messages set deleted_at = now() where id = '{id}'")).await;
        assert!(search(&bo, "bi mat").await.is_empty() && search_in(&bo, &ours, "bi mat").await.is_empty());
        connection.run(&format!("update app.messages set deleted_at = null where id = '{id}'")).await;
        assert_eq!(search(&bo, "bi mat").await.len(), 1);
        connection.run("update app.participants set left_at = now() where user_id = 'bo'").await;
        assert!(search(&bo, "bi mat").await.is_empty());
        bo.get(&format!("{CONVERSATIONS}/{ours}/search?q=bi%20mat")).await.expect_problem(404, "not_found");
    })
    .await;
}

/// The search goes through the months from the newest on and leaves none out: not one without a partition,
/// not one before the conversation was made. For a word in more messages than are ranked, the newest are
/// ranked.
#[tokio::test]
async fn messages_of_any_age_are_found() {
    Host::test(Options::default().without_rate_limits(), async |host| {
        let room = host.group("lobby", &["ana"]).await;
        let old = "insert into app.conversations (id, kind, name, created_by)
             select app.uuid_at(now() - interval '40 months'), 'group', 'old', 'ana';
             insert into app.participants (conversation_id, user_id, role)
             select id, 'ana', 'owner' from app.conversations where name = 'old'";
        host.database.run(old).await;
        for ago in [0, 1, 2, 3, 7, 20, 39] {
            // The same in a new conversation.
            let insert = format!(
                "insert into app.messages (id, conversation_id, seq, sender_id, type, content, created_at)
                 select app.uuid_at(at), id, {seq}, 'ana', 'text', 'tháng ' || {ago}, at
                 from app.conversations, (select now() - make_interval(months => {ago})) as moment(at)
                 where name = 'old' or id = '{room}'",
                seq = 100 - ago,
            );
            host.database.run(&insert).await;
        }
        let ana = host.rest("ana");
        let all = ["tháng 0", "tháng 1", "tháng 2", "tháng 3", "tháng 7", "tháng 20", "tháng 39"];
        assert_eq!(contents(&search_in(&ana, &room, "thang").await), all);
        let twice: Vec<_> = all.into_iter().flat_map(|content| [content, content]).collect();
        assert_eq!(contents(&search(&ana, "thang").await), twice);
        assert_eq!(contents(&search(&ana, "thang 20").await), ["tháng 20", "tháng 20"]);

        // An exact match that is older than the 200 newest messages with the word without its mark.
        let many = format!(
            "insert into app.messages (id, conversation_id, seq, sender_id, type, content, created_at)
             select app.uuid_at(now() - n * interval '1 millisecond'), '{room}', 1000 - n, 'ana', 'text', 'thang ' || n, now()
             from generate_series(1, 200) as n"
        );
        host.database.run(&many).await;
        let found = ana.get(&format!("{CONVERSATIONS}/{room}/search?q={}&limit=100", encoded("tháng"))).await.expect(200);
        let found = found["results"].as_array().expect("results").clone();
        assert_eq!(found.len(), 100);
        assert!(contents(&found).iter().all(|content| content.starts_with("thang") || *content == "tháng 0"));
    })
    .await;
}

#[tokio::test]
async fn the_ids_of_a_search_are_cached_and_redis_may_lose_them() {
    Host::test(Options::default().without_rate_limits(), async |host| {
        let room = host.group("lobby", &["ana", "bo"]).await;
        send(&host.rest("ana"), &room, "một hai").await;
        let bo = host.rest("bo");
        assert_eq!(search(&bo, "mot").await.len(), 1);
        send(&host.rest("ana"), &room, "một ba").await;
        // For sixty seconds the same query of the same user has the same answer.
        assert_eq!(search(&bo, "mot").await.len(), 1);
        assert_eq!(search(&bo, "một").await.len(), 2);
        assert_eq!(search(&host.rest("ana"), "mot").await.len(), 2);

        let client = redis::Client::open(host.redis.url_at(None)).unwrap();
        let mut redis = client.get_multiplexed_async_connection().await.unwrap();
        let keys: Vec<String> = redis::cmd("KEYS")
            .arg(host.redis_key("search:bo:*").await)
            .query_async(&mut redis)
            .await
            .unwrap();
        assert_eq!(keys.len(), 2);
        for key in &keys {
            let left: i64 = redis::cmd("TTL").arg(key).query_async(&mut redis).await.unwrap();
            assert!((1..=60).contains(&left) && !key.contains("mot"), "{key}: {left}");
        }
        let () = redis::cmd("FLUSHALL").query_async(&mut redis).await.unwrap();
        assert_eq!(search(&bo, "mot").await.len(), 2);
        host.redis.kill();
        assert_eq!(search(&bo, "mot").await.len(), 2);
        host.redis.start_again().await;
    })
    .await;
}

#[tokio::test]
async fn an_invalid_request_names_its_field() {
    Host::test(Options::default(), async |host| {
        let room = host.group("lobby", &["ana"]).await;
        let ana = host.rest("ana");
        for path in ["/api/v1/search".to_owned(), format!("{CONVERSATIONS}/{room}/search")] {
            for (query, field) in [
                (String::new(), "q"),
                ("?q=".into(), "q"),
                ("?q=%20%20".into(), "q"),
                ("?q=a%00b".into(), "q"),
                (format!("?q={}", "x".repeat(201)), "q"),
                (format!("?q={}", "x+".repeat(17)), "q"),
                (format!("?q={}", "%C4%91".repeat(201)), "q"),
                ("?q=x&limit=0".into(), "limit"),
                ("?q=x&limit=101".into(), "limit"),
                ("?q=x&limit=ten".into(), "limit"),
            ] {
                ana.get(&format!("{path}{query}")).await.expect_invalid(field);
            }
            let longest = ana.get(&format!("{path}?q={}&limit=100", "%C4%91".repeat(200))).await.expect(200);
            assert_eq!(longest, json!({"results": []}));
            ana.anonymous().get(&format!("{path}?q=x")).await.expect_problem(401, "unauthorized");
        }
    })
    .await;
}
