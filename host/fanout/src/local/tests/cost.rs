//! Measures a delivery in the local part of the hub, without sockets. It prints and asserts nothing;
//! `scripts/bench` measures the whole way. It is a test because a bench sees only public types: the local
//! part, the rooms and the envelope would have to be public for it alone.
//!
//! `cargo test --release -p switchboard-fanout --lib local::tests::cost -- --ignored --nocapture`

use std::time::Instant;

use super::*;
use crate::envelope::addressed;

#[test]
#[ignore = "a measurement"]
fn of_a_delivery() {
    for (readers, in_flight) in [(200, 1), (200, 4), (200, 64), (1000, 1), (1000, 4), (1000, 64)] {
        let (local, _mail) = <Local>::new();
        let lobby = Address::parse("conv:lobby").unwrap();
        let outlets: Vec<_> = (0..readers).map(|id| reader(&local, &lobby, id)).collect();
        let rounds = 400_000 / (readers * in_flight) as u64;
        let mut pieces = Vec::new();
        let (mut encoding, mut spreading, mut taking) = (0, 0, 0);
        for round in 0..rounds {
            let begin = Instant::now();
            let batch = messages(&lobby, round * in_flight as u64, in_flight);
            let encoded = Instant::now();
            local.deliver(&lobby, &batch);
            let spread = Instant::now();
            for outlet in &outlets {
                outlet.take(&mut pieces, usize::MAX);
                pieces.clear();
            }
            encoding += (encoded - begin).as_nanos();
            spreading += (spread - encoded).as_nanos();
            taking += spread.elapsed().as_nanos();
        }
        let each = |nanos: u128| nanos / u128::from(rounds * (readers * in_flight) as u64);
        println!(
            "{readers:>5} readers, {in_flight:>2} in flight: {:>4} ns a delivery (pack and parse {}, spread {}, take {})",
            each(encoding + spreading + taking),
            each(encoding),
            each(spreading),
            each(taking),
        );
    }
}

fn reader(local: &Local, lobby: &Address, id: usize) -> Arc<Outlet> {
    let connection = ConnectionId::random();
    let user = UserId::parse(&format!("user{id}")).unwrap();
    let outlet = local.open_connection(ConnectionInfo { connection, user, session: "s".into() });
    local.gate(connection, std::slice::from_ref(lobby)).unwrap();
    let after = vec![Position { track: 0, number: 0 }];
    local.open_gates(connection, &[Subscription { address: lobby.to_string(), after, missed: false }]);
    outlet
}

fn messages(lobby: &Address, after: u64, count: usize) -> Batch {
    let message = |number| Publication {
        address: lobby.to_string(),
        frame: format!(
            "{{\"type\":\"message.new\",\"payload\":{{\"seq\":{number},\"content\":\"{:200}\"}}}}",
            ""
        ),
        position: Some(Position { track: 0, number }),
        merge_key: None,
        except_user: None,
    };
    let publications: Vec<_> = (after + 1..=after + count as u64).map(message).collect();
    let packed = pack(&addressed(&publications)).unwrap();
    match Envelope::decode(packed[0].1.clone()) {
        Ok(Envelope::Publications(batch)) => batch,
        other => panic!("{other:?}"),
    }
}
