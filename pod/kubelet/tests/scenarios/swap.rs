//! A release is seen whole or not at all.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use sha2::{Digest as _, Sha256};
use testkit::http::Connection;
use testkit::wait_until;
use verify::engine::Engine;

use crate::processes::Processes;

const FILES: usize = 20;
const RELEASES: usize = 30;

/// One answer: which request, which file, which bytes.
struct Seen {
    request: String,
    path: String,
    sha256: String,
}

/// Releases of many files arrive while clients read. Of every answer the access log says which release it came from, and the
/// bytes must be that release's, as its manifest in the volume has them.
#[test]
fn server_never_sees_a_half_published_tree() {
    let pod = Processes::start(&["--period", "50ms"]);
    let over = AtomicBool::new(false);
    let seen: Vec<Seen> = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|reader| {
                scope.spawn({
                    let (pod, over) = (&pod, &over);
                    move || read_all(pod, over, reader)
                })
            })
            .collect();
        for release in 0..RELEASES {
            for file in 0..FILES {
                pod.put_content(&format!("{file}.txt"), &format!("{release:06}\n")).unwrap();
            }
            let last = format!("{release:06}\n");
            wait_until(&format!("release {release} is served"), || {
                (0..FILES).all(|file| pod.get(&format!("/{file}.txt")).is_ok_and(|page| page.text() == last))
            });
        }
        over.store(true, Ordering::SeqCst);
        readers.into_iter().flat_map(|reader| reader.join().unwrap()).collect()
    });
    assert!(seen.len() > RELEASES * FILES, "too few answers to mean anything: {}", seen.len());

    wait_until("every answer is at the sink", || {
        let releases = releases_by_request(&pod);
        seen.iter().all(|answer| releases.contains_key(&answer.request))
    });
    let releases = releases_by_request(&pod);
    let mut manifests = BTreeMap::new();
    for Seen { request, path, sha256 } in &seen {
        let release = &releases[request];
        let manifest = manifests.entry(release.clone()).or_insert_with(|| manifest(&pod, release));
        assert_eq!(manifest.get(path), Some(sha256), "{path} is not what release {release} has");
    }
    assert!(manifests.len() > 10, "too few releases to mean anything: {}", manifests.len());
    assert!(pod.stop().success());
}

/// Reads until it is over.
fn read_all(pod: &Processes, over: &AtomicBool, reader: usize) -> Vec<Seen> {
    let mut seen = Vec::new();
    let mut connection = Connection::open(pod.addr(9876));
    for number in 0.. {
        if over.load(Ordering::SeqCst) {
            break;
        }
        let (path, request) = (format!("{}.txt", number % FILES), format!("swap-{reader}-{number}"));
        let head = format!("GET /{path} HTTP/1.1\r\nHost: pod\r\nX-Request-Id: {request}\r\n\r\n");
        connection.send(head).unwrap();
        let answer = connection.receive("GET").unwrap();
        // 404 is right before the first release that has these files.
        if answer.status() != 404 {
            assert_eq!(answer.status(), 200);
            seen.push(Seen { request, path, sha256: hex(&answer.body) });
        }
    }
    seen
}

/// Which release each request was answered from, by the log at the sink.
fn releases_by_request(pod: &Processes) -> BTreeMap<String, String> {
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let records = pod.shipped().unwrap();
    let attributes = records.iter().map(|record| &record["attributes"]);
    attributes.map(|line| (text(&line["request.id"]), text(&line["release.id"]))).collect()
}

/// A published release's files and digests.
fn manifest(pod: &Processes, release: &str) -> BTreeMap<String, String> {
    let path = pod.dir.path().join(format!("volumes/content/releases/{release}.json"));
    let manifest: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let files = manifest["files"].as_array().unwrap().iter();
    files
        .map(|file| (file["path"].as_str().unwrap().to_owned(), file["sha256"].as_str().unwrap().to_owned()))
        .collect()
}

/// The SHA-256 of some bytes, as manifests write it.
fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}
