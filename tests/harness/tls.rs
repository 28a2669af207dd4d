//! A proxy in front of a host that speaks TLS: it listens without TLS and speaks TLS to the host, so that
//! every client of the harness can be used unchanged. Also the certificates of such hosts, each self-signed.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The name in all certificates.
const NAME: &str = "switchboard.test";

pub struct Certificate {
    der: CertificateDer<'static>,
    chain: String,
    key: String,
}

impl Certificate {
    pub fn make() -> Self {
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).expect("a certificate");
        Self { der: made.cert.der().clone(), chain: made.cert.pem(), key: made.signing_key.serialize_pem() }
    }

    /// As `cert.pem` and `key.pem`, each replaced whole, the certificate first.
    pub fn write(&self, directory: &Path) {
        for (name, text) in [("cert.pem", &self.chain), ("key.pem", &self.key)] {
            let new = directory.join(format!("{name}.new"));
            std::fs::write(&new, text).expect("a file");
            std::fs::rename(new, directory.join(name)).expect("a new name");
        }
    }

    /// A client that trusts this certificate and no other.
    fn connector(&self) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).expect("a certificate of ours");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions that the provider has")
            .with_root_certificates(roots)
            .with_no_client_auth();
        TlsConnector::from(Arc::new(config))
    }

    /// A handshake. An error: the host shows another certificate, or none.
    pub async fn connect(&self, host: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(NAME).expect("a name");
        self.connector().connect(name, TcpStream::connect(host).await?).await
    }
}

pub struct Door {
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl Door {
    /// To a host that shows this certificate.
    pub async fn to(host: SocketAddr, certificate: &Certificate) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let connector = certificate.connector();
        let task = tokio::spawn(async move {
            while let Ok((mut plain, _)) = listener.accept().await {
                let connector = connector.clone();
                tokio::spawn(async move {
                    let name = ServerName::try_from(NAME).expect("a name");
                    let Ok(stream) = TcpStream::connect(host).await else { return };
                    let _ = stream.set_nodelay(true);
                    let _ = plain.set_nodelay(true);
                    // The client sees a refusal as a connection that ends.
                    if let Ok(mut tls) = connector.connect(name, stream).await {
                        let _ = tokio::io::copy_bidirectional(&mut plain, &mut tls).await;
                    }
                });
            }
        });
        Self { address, task }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.task.abort();
    }
}
