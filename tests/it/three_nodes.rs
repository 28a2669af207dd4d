//! A room spread over three nodes; one of them dies. Its clients go on elsewhere, and nobody lacks anything.

use std::net::SocketAddr;
use std::time::Duration;

use switchboard_tests::host::{Host, Options};
use switchboard_tests::ledger;
use switchboard_tests::patience::{until, within};
use switchboard_tests::reference::Reference;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_over_three_nodes_outlives_one_of_them() {
    Host::test(Options::default().without_rate_limits(), async |host| {
        let users: Vec<String> = (0..9).map(|n| format!("user-{n}")).collect();
        let names: Vec<&str> = users.iter().map(String::as_str).collect();
        let room = host.group("lobby", &names).await;
        let second = host.another_node().await;
        let mut third = host.another_node().await;
        let addresses = [host.address, second.address, third.address];
        let clients: Vec<Reference> = users
            .iter()
            .enumerate()
            .map(|(n, user)| {
                let mut hosts: Vec<SocketAddr> = addresses.to_vec();
                hosts.rotate_left(n % 3);
                Reference::start(hosts, user, std::slice::from_ref(&room))
            })
            .collect();
        until("all to be subscribed", async || {
            clients.iter().all(|client| client.seq(&room) >= 1).then_some(())
        })
        .await;

        let mut said = 0;
        let mut talk = |times: usize| {
            for _ in 0..times {
                for client in &clients {
                    said += 1;
                    client.say(&room, &format!("message {said}"));
                }
            }
        };
        let acknowledged = || clients.iter().map(Reference::acknowledged).sum::<usize>();
        talk(30);
        until("some of it to be acknowledged", async || (acknowledged() > 60).then_some(())).await;
        third.kill().await;
        talk(30);
        within(Duration::from_secs(60), "everything to be acknowledged", async || {
            (acknowledged() == 540).then_some(())
        })
        .await;

        let history = ledger::history(&host.rest("user-0"), &room).await;
        let head = *history.last_key_value().expect("messages").0;
        assert_eq!(head, 541, "one message for each that was said, and the first of the conversation");
        within(Duration::from_secs(60), "everybody to have seen everything", async || {
            clients.iter().all(|client| client.seq(&room) == head).then_some(())
        })
        .await;
        let mut cut_off = 0;
        for client in &clients {
            let view = client.view();
            let stream = &view.streams[&room];
            let first = stream.shown.first().expect("something was shown").0;
            assert_eq!(first, 2, "a stream begins behind the head it was given");
            for ((seq, message), expected) in stream.shown.iter().zip(first..) {
                assert_eq!((*seq, message["content"].as_str()), (expected, Some(&*history[seq].content)));
            }
            cut_off += usize::from(!view.ends.is_empty());
        }
        // The others never noticed.
        assert_eq!(cut_off, 3);
        println!(
            "{} duplicates, {} gaps, ends: {:?}",
            clients.iter().map(|c| c.view().streams[&room].duplicates).sum::<u64>(),
            clients.iter().map(|c| c.view().streams[&room].gaps).sum::<u64>(),
            clients.iter().flat_map(|c| c.view().ends).collect::<Vec<_>>()
        );
    })
    .await;
}
