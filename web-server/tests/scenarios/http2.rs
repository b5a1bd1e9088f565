//! HTTP/2 with prior knowledge, spoken by a client that is not ours.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustix::process::Signal;
use testkit::http::get;
use testkit::wait_until;
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::live::bytes_read;
use crate::support::{Server, Volume};

struct Client {
    sender: SendRequest<Empty<Bytes>>,
    connection: tokio::task::JoinHandle<hyper::Result<()>>,
}

impl Client {
    async fn connect(server: &Server) -> Self {
        let stream = TcpStream::connect(server.addr).await.unwrap();
        let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        Self { sender, connection: tokio::spawn(connection) }
    }

    async fn request(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Response<Bytes> {
        let mut request = Request::builder().method(method).uri(format!("http://example.test:9876{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut sender = self.sender.clone();
        sender.ready().await.unwrap();
        let answer = sender.send_request(request.body(Empty::new()).unwrap()).await.unwrap();
        let (head, body) = answer.into_parts();
        Response::from_parts(head, body.collect().await.unwrap().to_bytes())
    }

    async fn get(&self, path: &str) -> Response<Bytes> {
        self.request("GET", path, &[]).await
    }
}

fn header<'a>(answer: &'a Response<Bytes>, name: &str) -> &'a str {
    answer.headers().get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
}

#[tokio::test]
async fn h2_prior_knowledge() {
    let numbers: Vec<_> = (0..200_000).map(|number| format!("{number:08}")).collect();
    let large = numbers.concat();
    let volume = Volume::with(&[("index.html", "hello"), ("large.bin", &large)]);
    let server = Server::start(&volume.root(), &["--access-log", "-"]);
    let client = Client::connect(&server).await;

    let page = client.get("/").await;
    assert_eq!((page.status().as_u16(), &page.body()[..]), (200, &b"hello"[..]));
    assert_eq!((header(&page, "content-length"), header(&page, "connection")), ("5", ""));
    // The same as over HTTP/1.1, tag and all.
    let etag = header(&page, "etag").to_owned();
    assert_eq!(server.get("/").header("etag"), Some(etag.as_str()));
    let info = client.get("/info").await;
    let golden = r#"{"host": "example.test:9876", "version": "0.5.0", "from": "127.0.0.1"}"#;
    assert_eq!(info.body(), golden);

    // Conditionals.
    assert_eq!(client.request("GET", "/", &[("if-none-match", &etag)]).await.status(), 304);
    assert_eq!(client.request("GET", "/", &[("if-match", "\"other\"")]).await.status(), 412);
    // Ranges, of what is held and of what is not.
    let part = client.request("GET", "/", &[("range", "bytes=1-3")]).await;
    assert_eq!((part.status().as_u16(), &part.body()[..]), (206, &b"ell"[..]));
    assert_eq!(header(&part, "content-range"), "bytes 1-3/5");
    let part = client.request("GET", "/large.bin", &[("range", "bytes=800000-800007")]).await;
    assert_eq!(part.body(), "00100000");
    let parts = client.request("GET", "/large.bin", &[("range", "bytes=0-7, 16-23")]).await;
    let text = String::from_utf8_lossy(parts.body()).into_owned();
    assert!(text.contains("\r\n\r\n00000000\r\n--") && text.contains("\r\n\r\n00000002\r\n--"), "{text}");
    assert_eq!(client.request("GET", "/", &[("range", "bytes=9-")]).await.status(), 416);
    // HEAD, and what is not there.
    let head = client.request("HEAD", "/large.bin", &[]).await;
    assert_eq!((header(&head, "content-length"), head.body().len()), ("1600000", 0));
    assert_eq!(client.get("/absent").await.status(), 404);
    assert_eq!(client.request("DELETE", "/", &[]).await.status(), 405);
    // The host is said once, or twice alike.
    assert_eq!(client.request("GET", "/", &[("host", "example.test:9876")]).await.status(), 200);
    assert_eq!(client.request("GET", "/", &[("host", "other.test")]).await.status(), 400);

    // Many at once on one connection, each whole.
    let answers = futures_util::future::join_all((0..40).map(|_| client.get("/large.bin"))).await;
    assert!(answers.iter().all(|answer| answer.body() == &large));
    let logged =
        || server.process.stdout_lines().iter().filter(|line| line.contains(r#"version":"2""#)).count();
    wait_until("each has its line", || logged() == 53);
}

#[tokio::test]
async fn h2_follows_a_swap_and_drains() {
    let large = "x".repeat(8 * 1024 * 1024);
    let volume = Volume::with(&[("index.html", "one"), ("large.bin", &large)]);
    let mut server = Server::start(&volume.root(), &[]);
    let client = Client::connect(&server).await;
    assert_eq!(client.get("/").await.body(), "one");
    volume.publish("two", &[("index.html", "two"), ("large.bin", &large)]);
    server.wait_for("/", "two");
    assert_eq!(client.get("/").await.body(), "two");

    // Begun before the signal, and finished after it.
    let mut sender = client.sender.clone();
    let request = Request::get("http://h/large.bin").body(Empty::new()).unwrap();
    let download = sender.send_request(request).await.unwrap();
    server.process.signal(Signal::TERM);
    wait_until("it drains", || {
        get(server.admin, "/livez").status() == 200 && { get(server.admin, "/readyz").text() == "draining\n" }
    });
    assert_eq!(download.into_body().collect().await.unwrap().to_bytes().len(), large.len());
    client.connection.await.unwrap().unwrap();
    assert_eq!(server.process.wait().code(), Some(0));
}

/// Clients that ask for much that has to be hashed, and leave.
#[tokio::test]
async fn a_file_is_not_hashed_on_when_its_clients_have_gone() {
    const CLIENTS: usize = 3;
    const FILES: usize = 60;
    const SIZE: usize = 8 * 1024 * 1024;
    const ALL: u64 = (CLIENTS * FILES * SIZE) as u64;
    let dir = tempfile::tempdir().unwrap();
    // The directory above the root is watched, and what is read of a busy one would count as well.
    let root = dir.path().join("root");
    std::fs::create_dir(&root).unwrap();
    for file in 0..CLIENTS * FILES {
        // Sparse: it takes a while to hash, and nothing to store.
        let file = std::fs::File::create(root.join(format!("{file}.bin"))).unwrap();
        file.set_len(SIZE as u64).unwrap();
    }
    let deadline = Instant::now() + testkit::wait::DEADLINE;
    loop {
        assert!(Instant::now() < deadline, "the clients never left in time");
        let server = Server::start(&root, &[]);
        let read = || bytes_read(server.process.id());
        let before = read();
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            clients.push(Client::connect(&server).await);
        }
        let paths: Vec<_> = (0..CLIENTS * FILES).map(|file| format!("/{file}.bin")).collect();
        let asked =
            paths.iter().zip(clients.iter().cycle()).map(|(path, client)| client.request("HEAD", path, &[]));
        tokio::select! {
            _ = futures_util::future::join_all(asked) => {}
            () = async { while read() == before { sleep(Duration::from_millis(1)).await } } => {}
        }
        // While it cannot go on.
        server.process.signal(Signal::STOP);
        for client in clients {
            client.connection.abort();
            client.connection.await.unwrap_err();
        }
        let until_then = read() - before;
        server.process.signal(Signal::CONT);
        if until_then > ALL / 2 {
            continue;
        }
        let (mut last, mut since) = (0, Instant::now());
        wait_until("nothing is read any more", || {
            let now = read();
            if now != last {
                (last, since) = (now, Instant::now());
            }
            since.elapsed() > Duration::from_millis(500)
        });
        let after = last - before - until_then;
        assert!(after < ALL / 4, "{after} bytes of {ALL} were hashed after their clients had left");
        return;
    }
}
