//! A room over three nodes; one of them dies. Its clients reconnect to the others, and no client misses a
//! message.

use std::net::SocketAddr;
use std::time::Duration;

use switchboard_tests::checker::{Books, SeenMessage};
use switchboard_tests::host::{Host, Options};
use switchboard_tests::patience::{until, within};
use switchboard_tests::reference::Reference;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conversation_on_three_nodes_survives_the_loss_of_one() {
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

        let mut seen = 0;
        let mut talk = |times: usize| {
            for _ in 0..times {
                for client in &clients {
                    seen += 1;
                    client.say(&room, &format!("message {seen}"));
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

        // One message for each send, and the first one of the conversation.
        within(Duration::from_secs(60), "everybody to have seen everything", async || {
            clients.iter().all(|client| client.seq(&room) >= 541).then_some(())
        })
        .await;
        let (mut books, mut cut_off) = (Books::default(), 0);
        for (user, client) in users.iter().zip(&clients) {
            let view = client.view();
            books.acknowledged(&room, view.acknowledged.iter().map(|(_, seen)| *seen));
            let shown = view.streams[&room].shown.iter();
            let seen = shown
                .map(|(seq, message)| SeenMessage::new(*seq, message["id"].as_str().unwrap_or_default()));
            // A stream begins after its first head.
            books.received(&room, user, 1, seen.collect());
            cut_off += usize::from(!view.ends.is_empty());
        }
        let checked = books.check(host.address, |_| "user-0".to_owned()).await;
        let checked = checked.unwrap_or_else(|wrong| panic!("{wrong}"));
        assert_eq!((checked.stored, checked.acknowledged, checked.duplicates), (541, 540, 0));
        // The other clients noticed nothing.
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
