//! HTTPS, with certificates that are made for the test: whom the puller trusts, and who it says it is.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use testkit::Answer;
use testkit::http::Connection;

use crate::content::ContentManager;
use crate::puller::{Volume, once, publishes, start_when_asked, try_sync};

const SITE: &[(&str, &str)] = &[("index.html", "<h1>hello</h1>"), ("css/site.css", "a{}")];

/// A certificate authority of the test's own.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("a certificate"))
    }

    /// Certificate and key for a name, in PEM form.
    fn issue(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new([name.to_owned()]).expect("a name");
        (params.signed_by(&key, &self.0).expect("a certificate"), key)
    }

    /// A file with its certificate.
    pub(crate) fn file(&self, volume: &Volume, name: &str) -> String {
        file(volume, name, &self.0.pem())
    }
}

fn file(volume: &Volume, name: &str, pem: &str) -> String {
    let path = volume.above().join(name);
    fs::write(&path, pem).expect("a file");
    path.to_str().expect("UTF-8").to_owned()
}

/// Speaks TLS in front of a server that does not.
pub(crate) struct TlsFront(SocketAddr);

impl TlsFront {
    /// `clients` may connect; without it, everybody.
    pub(crate) fn start(behind: SocketAddr, authority: &Authority, clients: Option<&Authority>) -> Self {
        Self::start_with("127.0.0.1", behind, authority, clients)
    }

    /// Everybody may connect, and sees the certificate of that name.
    pub(crate) fn start_as(name: &str, behind: SocketAddr, authority: &Authority) -> Self {
        Self::start_with(name, behind, authority, None)
    }

    fn start_with(
        name: &str,
        behind: SocketAddr,
        authority: &Authority,
        clients: Option<&Authority>,
    ) -> Self {
        let provider = Arc::new(default_provider());
        let config = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let config = config.with_safe_default_protocol_versions().expect("TLS 1.2 and 1.3");
        let config = match clients {
            None => config.with_no_client_auth(),
            Some(clients) => {
                let mut roots = RootCertStore::empty();
                roots.add(clients.0.der().clone()).expect("a certificate");
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                config.with_client_cert_verifier(verifier.build().expect("a verifier"))
            }
        };
        let (certificate, key) = authority.issue(name);
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let config = config.with_single_cert(vec![certificate.der().clone()], key).expect("they match");
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("an address");
        // Ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let config = Arc::clone(&config);
                // A connection that breaks is what some of the tests are about.
                std::thread::spawn(move || drop(relay(stream, config, behind)));
            }
        });
        Self(addr)
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.0
    }

    pub(crate) fn url(&self) -> String {
        format!("https://{}/site/manifest.json", self.0)
    }
}

fn relay(stream: TcpStream, config: Arc<ServerConfig>, behind: SocketAddr) -> std::io::Result<()> {
    let tls = ServerConnection::new(config).map_err(std::io::Error::other)?;
    let mut client = BufReader::new(StreamOwned::new(tls, stream));
    let mut server = Connection::try_open(behind)?;
    loop {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            if client.read_until(b'\n', &mut request)? == 0 {
                return Ok(());
            }
        }
        server.send(&request)?;
        let answer = server.receive("GET")?;
        let mut response = answer.start.clone().into_bytes();
        for (name, value) in &answer.headers {
            write!(response, "\r\n{name}: {value}")?;
        }
        response.extend(b"\r\n\r\n");
        response.extend(answer.body);
        client.get_mut().write_all(&response)?;
    }
}

#[test]
fn https_with_a_private_authority() {
    let (manager, volume, authority) = (ContentManager::start(SITE), Volume::new(), Authority::new());
    let front = TlsFront::start(manager.upstream.addr(), &authority, None);
    let (code, stderr) = once(&front.url(), &volume.path(), &["--log-level", "error"]);
    assert_eq!((code, stderr.lines().count()), (69, 1), "{stderr}");
    assert!(stderr.contains("certificate"), "{stderr}");
    assert_eq!(manager.asked(), [] as [&str; 0], "nothing is sent to whom nobody vouches for");
    let other = Authority::new().file(&volume, "other.pem");
    let (code, stderr) = once(&front.url(), &volume.path(), &["--ca-file", &other]);
    assert_eq!(code, 69, "{stderr}");
    let (code, stderr) =
        once(&front.url(), &volume.path(), &["--ca-file", &authority.file(&volume, "ca.pem")]);
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(volume.tree(), manager.site().files);
}

#[test]
fn https_with_a_client_certificate() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let (authority, clients) = (Authority::new(), Authority::new());
    let front = TlsFront::start(manager.upstream.addr(), &authority, Some(&clients));
    let ca = authority.file(&volume, "ca.pem");
    let (code, stderr) = once(&front.url(), &volume.path(), &["--ca-file", &ca]);
    assert_eq!(code, 69, "{stderr}");
    let give = |by: &Authority| {
        let (certificate, key) = by.issue("puller");
        let certificate = file(&volume, "client.pem", &certificate.pem());
        (certificate, file(&volume, "client.key", &key.serialize_pem()))
    };
    // One that the server does not know, and then one that it does: rotation needs no restart.
    let (certificate, key) = give(&authority);
    let identity = ["--ca-file", &ca, "--client-cert-file", &certificate, "--client-key-file", &key];
    let process = start_when_asked(&front.url(), &volume, &identity);
    assert_eq!(try_sync(&process).json()["reason"], "unreachable");
    assert_eq!(manager.asked(), [] as [&str; 0]);
    give(&clients);
    assert_eq!(publishes(&process, &volume, &manager)["fetched_files"], 2);
}

#[test]
fn certificate_files_that_are_none() {
    let volume = Volume::new();
    let none = file(&volume, "none.pem", "secret");
    let missing = volume.above().join("missing");
    let missing = missing.to_str().expect("UTF-8");
    for (flags, code, what) in [
        (vec!["--ca-file", &none], 78, "CERTIFICATE in PEM form"),
        (vec!["--ca-file", missing], 74, "cannot read the credential"),
        (vec!["--client-cert-file", &none, "--client-key-file", &none], 78, "a private key in PEM form"),
        (vec!["--client-cert-file", &none], 64, "--client-key-file"),
    ] {
        let flags = [&flags[..], &["--log-level", "error"]].concat();
        let (got, stderr) = once("https://127.0.0.1:1/manifest.json", &volume.path(), &flags);
        assert_eq!((got, stderr.lines().count()), (code, 1), "{stderr}");
        assert!(stderr.contains(what) && !stderr.contains("secret"), "{stderr}");
    }
}

#[test]
fn redirect_https_to_http() {
    let (manager, volume, authority) = (ContentManager::start(SITE), Volume::new(), Authority::new());
    let plain = ContentManager::start(SITE);
    let to = plain.url();
    manager.fault(move |_, _| Some(Answer::new(302, "").with("Location", &to)));
    let front = TlsFront::start(manager.upstream.addr(), &authority, None);
    let token = file(&volume, "token", "secret");
    let ca = authority.file(&volume, "ca.pem");
    let (code, stderr) =
        once(&front.url(), &volume.path(), &["--ca-file", &ca, "--bearer-token-file", &token]);
    assert_eq!(code, 78, "{stderr}");
    assert!(stderr.contains("another origin"), "{stderr}");
    assert_eq!(manager.upstream.requests()[0].header("authorization"), Some("Bearer secret"));
    assert_eq!(plain.asked(), [] as [&str; 0], "and the credential went nowhere else");
}
