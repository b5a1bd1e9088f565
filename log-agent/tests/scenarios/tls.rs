//! Over TLS, with certificates that are made for the test: whom the agent trusts.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{WantsServerCert, WebPkiClientVerifier};
use rustls::{ConfigBuilder, RootCertStore, ServerConfig, ServerConnection, StreamOwned, WantsVerifier};

use crate::support::{Receiver, Room, write, write_numbers};

/// Speaks TLS in front of a server that does not; returns its address and its certificate in PEM.
pub(crate) fn front(behind: SocketAddr) -> (SocketAddr, String) {
    front_with(behind, Builder::with_no_client_auth)
}

/// The same, for clients with a certificate that this authority has signed.
pub(crate) fn front_that_asks(behind: SocketAddr, ca: &str) -> (SocketAddr, String) {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(default_provider()));
    let verifier = verifier.build().unwrap();
    front_with(behind, |config| config.with_client_cert_verifier(verifier))
}

type Builder = ConfigBuilder<ServerConfig, WantsVerifier>;
type Verified = ConfigBuilder<ServerConfig, WantsServerCert>;

fn front_with(behind: SocketAddr, clients: impl FnOnce(Builder) -> Verified) -> (SocketAddr, String) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
    let pem = certificate.pem();
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap();
    let config = clients(config).with_single_cert(
        vec![certificate.der().clone()],
        PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
    );
    let config = Arc::new(config.unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let config = Arc::clone(&config);
            std::thread::spawn(move || {
                let tls = ServerConnection::new(config).unwrap();
                let server = TcpStream::connect(behind).unwrap();
                pass(StreamOwned::new(tls, client.unwrap()), server);
            });
        }
    });
    (addr, pem)
}

/// Passes on what either side says, until one of them has ended.
fn pass(mut client: StreamOwned<ServerConnection, TcpStream>, mut server: TcpStream) {
    client.sock.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    server.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    let mut buffer = vec![0; 1 << 16];
    let mut step = |from: &mut dyn Read, to: &mut dyn Write| match from.read(&mut buffer) {
        Ok(0) => false,
        Ok(read) => to.write_all(&buffer[..read]).and_then(|()| to.flush()).is_ok(),
        Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
    };
    while step(&mut client, &mut server) && step(&mut server, &mut client) {}
}

#[test]
fn https_delivery() {
    let (room, receiver) = (Room::new(), Receiver::start());
    let (addr, pem) = front(receiver.upstream.addr());
    write(&room.path("ca.pem"), pem);
    write_numbers(&mut crate::support::append(&room.log("a.log")), 0..100);
    let sink = format!("ndjson+https://{addr}/logs");
    // Nobody whom the world trusts has signed that.
    let agent = room.agent(&sink, &[]);
    agent.event("it says so", |event| {
        event["reason"].as_str().is_some_and(|reason| reason.to_lowercase().contains("certificate"))
    });
    assert!(receiver.records().is_empty());
    drop(agent);
    let mut agent = room.agent(&sink, &["--ca-file", room.path("ca.pem").to_str().unwrap()]);
    receiver.expect_numbers(100);
    assert!(agent.terminate().success());
}

#[test]
fn forward_over_tls() {
    let (room, receiver) = (Room::new(), crate::forward::Receiver::start());
    let (addr, pem) = front(receiver.addr);
    write(&room.path("ca.pem"), pem);
    write(&room.log("a.log"), "line 0\n");
    let sink = format!("forward+tls://{addr}/tag");
    let agent = room.agent(&sink, &[]);
    agent.event("it says so", |event| event["reason"].as_str().is_some_and(|reason| reason.contains("TLS")));
    drop(agent);
    let _agent = room.agent(&sink, &["--ca-file", room.path("ca.pem").to_str().unwrap()]);
    testkit::wait_until("it arrives", || receiver.bodies() == ["line 0"]);
}

#[test]
fn a_ca_file_that_is_none_is_refused() {
    let (room, receiver) = (Room::new(), Receiver::start());
    write(&room.path("ca.pem"), "no certificate");
    let mut agent = room.agent(&receiver.sink(), &["--ca-file", room.path("ca.pem").to_str().unwrap()]);
    assert_eq!(agent.wait().code(), Some(78));
    assert!(agent.stderr().contains("--ca-file"));
}
