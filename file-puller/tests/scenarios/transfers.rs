//! Transfers that break, stall or lie, and how they are taken up again.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use testkit::http::Message;
use testkit::{Answer, wait_until};

use crate::content::{ContentManager, sha256};
use crate::puller::{Volume, publishes, start_in_step, try_sync};

const SIZE: usize = 2_000_000;
/// What a connection brings before it breaks.
const PART: usize = 700_000;

/// A content manager with a large file, and a puller that is in step with what was before it.
fn with_large_file() -> (ContentManager, Volume, testkit::Process) {
    let (manager, volume) = (ContentManager::start(&[("index.html", "<h1>hello</h1>")]), Volume::new());
    let process = start_in_step(&manager, &volume, &[]);
    manager.put("large", content(1));
    (manager, volume, process)
}

fn content(seed: usize) -> Vec<u8> {
    (0..SIZE).map(|at| u8::try_from((at * seed + at / 251) % 256).expect("below 256")).collect()
}

fn is_large(request: &Message) -> bool {
    request.target() == "/site/large"
}

fn asked_from(request: &Message) -> Option<usize> {
    request.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
}

/// Sends the file, or the rest of it, as far as `PART` goes, and counts what was sent.
fn part_of(content: &[u8], request: &Message, sent: &Arc<AtomicUsize>, end: fn(&TcpStream)) -> Answer {
    let tag = format!("\"{}\"", sha256(content));
    let from = asked_from(request).filter(|_| request.header("if-range") == Some(&tag));
    let rest = content[from.unwrap_or(0)..].to_vec();
    let start = from.map_or_else(
        || "200 OK".to_owned(),
        |from| format!("206 Partial Content\r\nContent-Range: bytes {from}-{}/{SIZE}", SIZE - 1),
    );
    let head = format!("HTTP/1.1 {start}\r\nETag: {tag}\r\nContent-Length: {}\r\n\r\n", rest.len());
    let sent = Arc::clone(sent);
    Answer::raw(move |stream| {
        let part = &rest[..rest.len().min(PART)];
        sent.fetch_add(part.len(), Ordering::Relaxed);
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(part)).expect("it listens");
        end(stream);
    })
}

#[test]
fn body_truncated() {
    let (manager, volume, process) = with_large_file();
    let sent = Arc::new(AtomicUsize::new(0));
    let counting = Arc::clone(&sent);
    manager.fault(move |request, site| {
        is_large(request).then(|| part_of(&site.files["large"].1, request, &counting, |_| {}))
    });
    publishes(&process, &volume, &manager);
    assert_eq!(sent.load(Ordering::Relaxed), SIZE, "each byte once");
    let from: Vec<_> =
        manager.upstream.requests().iter().filter(|one| is_large(one)).map(asked_from).collect();
    assert_eq!(from, [None, Some(PART), Some(2 * PART)]);
}

#[test]
fn connection_reset_mid_body() {
    let (manager, volume, process) = with_large_file();
    let sent = Arc::new(AtomicUsize::new(0));
    let counting = Arc::clone(&sent);
    manager.fault(move |request, site| {
        is_large(request).then(|| {
            part_of(&site.files["large"].1, request, &counting, |stream| {
                // What was sent has time to arrive: a reset takes away what the receiver has not read.
                std::thread::sleep(Duration::from_millis(50));
                rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO)).expect("a socket");
            })
        })
    });
    publishes(&process, &volume, &manager);
    assert!(sent.load(Ordering::Relaxed) < 2 * SIZE, "each byte about once");
    assert!(manager.upstream.requests().iter().any(|request| asked_from(request).is_some()));
}

#[test]
fn server_ignores_range() {
    let (manager, volume, process) = with_large_file();
    let asked = AtomicUsize::new(0);
    manager.fault(move |request, site| {
        let first = is_large(request) && asked.fetch_add(1, Ordering::Relaxed) == 0;
        // Later requests are answered as if they had no Range, in whole.
        first.then(|| part_of(&site.files["large"].1, request, &Arc::default(), |_| {}))
    });
    publishes(&process, &volume, &manager);
    let from: Vec<_> =
        manager.upstream.requests().iter().filter(|one| is_large(one)).map(asked_from).collect();
    assert_eq!(from, [None, Some(PART)]);
}

/// The content changes while it is fetched: no release may have the head of one and the tail of the other.
#[test]
fn etag_changes_mid_resume() {
    let (manager, volume, process) = with_large_file();
    let asked = AtomicUsize::new(0);
    let (old, new) = (content(1), content(3));
    manager.fault(move |request, _| {
        if !is_large(request) {
            return None;
        }
        Some(match asked.fetch_add(1, Ordering::Relaxed) {
            0 => part_of(&old, request, &Arc::default(), |_| {}),
            _ => Answer::new(200, new.clone()).with("ETag", "\"new\""),
        })
    });
    assert_eq!(
        try_sync(&process).json()["reason"],
        "mismatch",
        "the manifest still promises the old content"
    );
    manager.put("large", content(3));
    publishes(&process, &volume, &manager);
}

/// Without a strong entity tag nobody can say that the rest is of the same content.
#[test]
fn no_resume_without_a_strong_validator() {
    let (manager, _volume, process) = with_large_file();
    manager.fault(|request, _| {
        is_large(request).then(|| {
            Answer::raw(|stream| {
                let head =
                    format!("HTTP/1.1 200 OK\r\nETag: W/\"weak\"\r\nContent-Length: {SIZE}\r\n\r\nxxx");
                stream.write_all(head.as_bytes()).expect("it listens");
            })
        })
    });
    assert_eq!(try_sync(&process).json()["reason"], "unreachable");
    assert!(manager.upstream.requests().iter().all(|request| request.header("range").is_none()));
}

/// A source that breaks every time without bringing anything is given up.
#[test]
fn breaks_without_progress_end() {
    let (manager, volume, process) = with_large_file();
    let tag = format!("\"{}\"", sha256(&content(1)));
    manager.fault(move |request, _| {
        let head = format!("HTTP/1.1 200 OK\r\nETag: {tag}\r\nContent-Length: {SIZE}\r\n\r\n");
        is_large(request)
            .then(|| Answer::raw(move |stream| stream.write_all(head.as_bytes()).expect("it listens")))
    });
    assert_eq!(try_sync(&process).json()["reason"], "unreachable");
    let requests = manager.asked().iter().filter(|path| path.ends_with("/large")).count();
    assert!((2..=5).contains(&requests), "{requests}");
    assert_eq!(volume.staging(), [] as [&str; 0]);
}

#[test]
fn slow_drip_body() {
    let (manager, volume) = (ContentManager::start(&[("index.html", "<h1>hello</h1>")]), Volume::new());
    let process = start_in_step(&manager, &volume, &["--read-timeout", "300ms", "--min-throughput", "1KiB"]);
    let before = volume.current();
    let drip = |head: String| {
        Answer::raw(move |stream| {
            let mut sent = stream.write_all(head.as_bytes());
            while sent.is_ok() {
                std::thread::sleep(Duration::from_millis(20));
                sent = stream.write_all(b"x");
            }
        })
    };
    manager.put("large", content(1));
    manager.fault(move |request, _| {
        is_large(request).then(|| drip(format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n")))
    });
    let answer = try_sync(&process).json();
    assert_eq!(answer["reason"], "slow");
    assert!(answer["error"].as_str().is_some_and(|error| error.contains("--min-throughput")), "{answer}");
    // A manifest that drips holds up no less.
    manager.fault(move |_, _| Some(drip("HTTP/1.1 200 OK\r\n\r\n".to_owned())));
    assert_eq!(try_sync(&process).json()["reason"], "slow");
    assert_eq!(volume.current(), before);
    assert!(process.resident_bytes() < 40 << 20);
    manager.recover();
    // On a busy machine a healthy source may well be silent for 300 ms.
    wait_until("it is published", || try_sync(&process).status() == 200);
    assert_eq!(volume.tree(), manager.site().files);
}
