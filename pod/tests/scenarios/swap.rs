//! A release is seen whole or not at all.

use std::sync::atomic::{AtomicBool, Ordering};

use pod::engine::Engine;
use testkit::http::Connection;
use testkit::wait_until;

use crate::processes::Processes;

const FILES: usize = 20;
const RELEASES: usize = 30;

/// Releases of many files that all carry one number arrive while clients read; whatever is served for a release id is
/// that release's.
#[test]
fn server_never_sees_a_half_published_tree() {
    let pod = Processes::start(&["--period", "50ms"]);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2).map(|_| scope.spawn(|| read_all(&pod, &over))).collect();
        for release in 0..RELEASES {
            for file in 0..FILES {
                pod.put_content(&format!("{file}.txt"), &format!("{release:06}\n")).unwrap();
            }
            let last = format!("{release:06}\n");
            wait_until(&format!("release {release} is served\n{}", pod.stderr()), || {
                (0..FILES).all(|file| pod.get(&format!("/{file}.txt")).is_ok_and(|page| page.text() == last))
            });
        }
        over.store(true, Ordering::SeqCst);
        let answers: usize = readers.into_iter().map(|reader| reader.join().unwrap()).sum();
        assert!(answers > RELEASES * FILES, "too few answers to mean anything: {answers}");
    });
    assert!(pod.stop().success());
}

/// Reads until it is over; every answer must be one whole file of one release, with the ETag of exactly that content.
fn read_all(pod: &Processes, over: &AtomicBool) -> usize {
    let mut etags = std::collections::HashMap::<String, String>::new();
    let mut connection = Connection::open(pod.addr(9876));
    let mut answers = 0;
    while !over.load(Ordering::SeqCst) {
        let file = answers % FILES;
        connection.send(format!("GET /{file}.txt HTTP/1.1\r\nHost: pod\r\n\r\n")).unwrap();
        let answer = connection.receive("GET").unwrap();
        answers += 1;
        if answer.status() == 404 {
            continue; // before the first release that has these files
        }
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.body.len(), 7, "half a file: {:?}", answer.text());
        let etag = answer.header("etag").expect("content has an ETag").to_owned();
        let known = etags.entry(answer.text().to_owned()).or_insert_with(|| etag.clone());
        assert_eq!(*known, etag, "one content, two ETags: {}", answer.text());
    }
    answers
}
