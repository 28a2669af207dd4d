//! A server that becomes unreachable and comes back.

use super::*;

/// A TCP proxy to the server that can be cut and opened again.
struct Way {
    address: std::net::SocketAddr,
    server: String,
    passing: Option<tokio::task::JoinHandle<()>>,
}

impl Way {
    async fn to(server: &str) -> Self {
        let unused = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut way =
            Self { address: unused.local_addr().unwrap(), server: server.to_owned(), passing: None };
        way.pass(unused);
        way
    }

    async fn open(&mut self) {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(self.address).unwrap();
        self.pass(socket.listen(64).unwrap());
    }

    fn pass(&mut self, listener: tokio::net::TcpListener) {
        let server = self.server.clone();
        self.passing = Some(tokio::spawn(async move {
            let mut passed = tokio::task::JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                let server = server.clone();
                passed.spawn(async move {
                    let mut server = tokio::net::TcpStream::connect(server).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
            }
        }));
    }

    async fn cut(&mut self) {
        let passing = self.passing.take().unwrap();
        passing.abort();
        let _ = passing.await;
    }
}

#[tokio::test]
async fn a_server_that_is_away_is_retryable_and_used_again_when_it_is_back() {
    with_world(8, async |world| {
        table(&world).await;
        let url = world.config.database_url.clone().unwrap();
        let (head, tail) = url.split_once('@').unwrap();
        let (server, database) = tail.split_once('/').unwrap();
        let mut way = Way::to(server).await;
        let config = Config {
            database_url: Some(format!("{head}@{}/{database}", way.address)),
            ..world.config.clone()
        };
        let postgres = Postgres::connect(&config).await.unwrap();
        let call =
            || postgres.session(Some("test"), Digest::of(b""), Instant::now() + Duration::from_secs(10));
        let calls = async || {
            let asked = (0..20).map(|_| async { call().query("select 1", &[]).await });
            futures_util::future::join_all(asked).await
        };
        assert!(calls().await.iter().all(Result::is_ok));
        let mut open = call();
        open.begin().await.unwrap();
        open.execute("insert into t values (1, 'a')", &[]).await.unwrap();

        way.cut().await;
        assert!(matches!(open.execute("insert into t values (2, 'b')", &[]).await, Err(Error::Retryable(_))));
        assert!(matches!(open.commit().await, Err(Error::Retryable(_))));
        let begun = Instant::now();
        for answer in calls().await {
            assert!(matches!(answer, Err(Error::Retryable(_))), "{answer:?}");
        }
        assert!(begun.elapsed() < Duration::from_secs(5), "nobody waited for the deadline");
        assert!(!postgres.healthy().await);

        way.open().await;
        assert!(calls().await.iter().all(Result::is_ok));
        until(async || postgres.healthy().await).await;
        assert_eq!(world.count("select count(*) from t").await, 0);
        postgres.close().await;
    })
    .await;
}
