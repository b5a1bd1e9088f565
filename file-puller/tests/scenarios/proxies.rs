//! Proxies, as the environment names them: one that is asked for http:// URLs, one that tunnels https:// to where it is told.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use testkit::Process;

use crate::content::ContentManager;
use crate::puller::{BINARY, Volume};
use crate::tls::{Authority, TlsFront};

const SITE: &[(&str, &str)] = &[("index.html", "<h1>hello</h1>"), ("css/site.css", "a{}")];

/// A proxy that opens tunnels (`CONNECT`, RFC 9110, section 9.3.6) to where the test says, and keeps what it was asked.
pub(crate) struct Tunnels {
    addr: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Tunnels {
    /// All of them lead to one server.
    fn start(to: SocketAddr) -> Self {
        Self::start_with(move |_| Some(to))
    }

    /// Each leads to the server of that name.
    pub(crate) fn by_name(servers: BTreeMap<String, SocketAddr>) -> Self {
        Self::start_with(move |name| servers.get(name).copied())
    }

    fn start_with(server: impl Fn(&str) -> Option<SocketAddr> + Send + Sync + 'static) -> Self {
        let server = Arc::new(server);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("an address");
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let all = Arc::clone(&asked);
        // Ends with the test's process.
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (all, server) = (Arc::clone(&all), Arc::clone(&server));
                thread::spawn(move || drop(tunnel(client, &*server, &all)));
            }
        });
        Self { addr, asked }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The heads of all requests so far.
    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no holder panics").clone()
    }
}

fn tunnel(
    client: TcpStream,
    server: &dyn Fn(&str) -> Option<SocketAddr>,
    asked: &Mutex<Vec<String>>,
) -> io::Result<()> {
    let mut from_client = BufReader::new(client.try_clone()?);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if from_client.read_line(&mut head)? == 0 {
            return Ok(());
        }
    }
    let opens = head.starts_with("CONNECT ");
    let name = head.split([' ', ':']).nth(1).unwrap_or_default().to_owned();
    asked.lock().expect("no holder panics").push(head);
    let mut to_client = client;
    if !opens {
        return to_client.write_all(b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n");
    }
    let Some(to) = server(&name) else {
        return to_client.write_all(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n");
    };
    let mut to_server = TcpStream::connect(to)?;
    let mut from_server = to_server.try_clone()?;
    to_client.write_all(b"HTTP/1.1 200 Connection Established\r\n\r\n")?;
    thread::spawn(move || io::copy(&mut from_server, &mut to_client));
    io::copy(&mut from_client, &mut to_server).map(drop)
}

/// `--once` in an environment that names these proxies and no others.
fn once_with(environment: &[(&str, &str)], flags: &[&str], volume: &Volume) -> (Option<i32>, String) {
    let mut command = Command::new(BINARY);
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"] {
        command.env_remove(name).env_remove(name.to_lowercase());
    }
    command.envs(environment.iter().copied()).args(["--once", "--log-level", "trace", "--volume"]);
    let mut process = Process::start_as_is({
        command.arg(volume.path()).args(flags);
        command
    });
    (process.wait().code(), process.stderr())
}

#[test]
fn http_proxy_is_asked_for_the_whole_url() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    manager.fault(|request, site| {
        let path = request.target().strip_prefix("http://content.example").expect("through the proxy");
        let mut direct = request.clone();
        direct.start = format!("GET {path} HTTP/1.1");
        Some(site.answer(&direct))
    });
    let source = ["--source", "http://content.example/site/manifest.json"];
    let (code, stderr) = once_with(&[("HTTP_PROXY", &manager.upstream.url(""))], &source, &volume);
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(volume.tree(), manager.site().files);
}

/// SECURITY: a tunnel's proxy learns the name of the server and nothing of what is said to it.
#[test]
fn https_proxy_opens_a_tunnel() {
    let (manager, volume, authority) = (ContentManager::start(SITE), Volume::new(), Authority::new());
    let front = TlsFront::start_as("content.example", manager.upstream.addr(), &authority);
    let proxy = Tunnels::start(front.addr());
    let token = volume.above().join("token");
    std::fs::write(&token, "s3cr3t-token").expect("a file");
    let (authority, token) = (authority.file(&volume, "ca.pem"), token.to_str().expect("UTF-8"));
    let flags = ["--ca-file", &authority, "--bearer-token-file", token];
    let source = ["--source", "https://content.example/site/manifest.json?key=s3cr3t-query"];
    let proxy_url = format!("http://me:s3cr3t-password@{}", proxy.addr);
    // HTTP_PROXY is for http:// alone.
    let environment = [("HTTPS_PROXY", proxy_url.as_str()), ("HTTP_PROXY", "http://127.0.0.1:1")];
    let (code, stderr) = once_with(&environment, &[&source[..], &flags[..]].concat(), &volume);
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(volume.tree(), manager.site().files);
    assert_eq!(manager.upstream.requests()[0].header("authorization"), Some("Bearer s3cr3t-token"));
    let asked = proxy.asked();
    assert!(!asked.is_empty());
    for head in asked {
        assert!(head.starts_with("CONNECT content.example:443 HTTP/1.1\r\n"), "{head}");
        // The proxy's own credentials, as RFC 7617 encodes them, and none of the content manager's.
        assert!(
            head.to_lowercase().contains("proxy-authorization: basic bwu6cznjcjn0lxbhc3n3b3jk"),
            "{head}"
        );
        assert!(!head.contains("s3cr3t"), "{head}");
    }
    assert!(!stderr.contains("s3cr3t"), "{stderr}");
}

#[test]
fn https_proxy_that_is_down_is_the_source_that_is_down() {
    let volume = Volume::new();
    let source = ["--source", "https://content.example/site/manifest.json"];
    let environment = [("HTTPS_PROXY", "http://me:s3cr3t-password@127.0.0.1:1")];
    let (code, stderr) = once_with(&environment, &source, &volume);
    assert_eq!(code, Some(69), "{stderr}");
    assert!(stderr.contains("content.example") && stderr.contains("Connection refused"), "{stderr}");
    assert!(!stderr.contains("s3cr3t"), "{stderr}");
    volume.assert_nothing_written();
}

#[test]
fn no_proxy_goes_past_the_proxy() {
    let (manager, volume, authority) = (ContentManager::start(SITE), Volume::new(), Authority::new());
    let nowhere = "http://127.0.0.1:1";
    let environment = |no_proxy| [("HTTP_PROXY", nowhere), ("HTTPS_PROXY", nowhere), ("NO_PROXY", no_proxy)];
    let url = manager.url();
    let plain = ["--source", url.as_str()];
    let (code, stderr) = once_with(&environment("content.example"), &plain, &volume);
    assert_eq!(code, Some(69), "it names another host: {stderr}");
    let (code, stderr) = once_with(&environment("content.example,127.0.0.0/8"), &plain, &volume);
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(volume.tree(), manager.site().files);
    let front = TlsFront::start(manager.upstream.addr(), &authority, None);
    manager.put("index.html", "new");
    let (url, authority) = (front.url(), authority.file(&volume, "ca.pem"));
    let (code, stderr) =
        once_with(&environment("127.0.0.1"), &["--source", &url, "--ca-file", &authority], &volume);
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(volume.tree(), manager.site().files);
}
