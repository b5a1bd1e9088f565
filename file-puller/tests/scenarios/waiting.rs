//! Waiting for a change instead of asking again and again: content managers that can, that cannot, and what is on the way to them.

use std::fs;
use std::io::Read as _;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use testkit::{Answer, Process, http, wait_until};

use crate::content::ContentManager;
use crate::puller::{Volume, metric, ready, start, start_with_period, sync};

const SITE: &[(&str, &str)] = &[("index.html", "<h1>hello</h1>")];
/// Far less than any `--wait` or `--period` here, and enough for a loaded machine.
const AT_ONCE: Duration = Duration::from_secs(5);

fn status(process: &Process) -> Value {
    http::get(process.addr("admin"), "/status").json()
}

#[track_caller]
fn waits(process: &Process) {
    wait_until("a question is held", || status(process)["waiting"] == true);
}

/// Questions that were to be held.
fn held(manager: &ContentManager) -> usize {
    manager.upstream.requests().iter().filter(|request| ContentManager::is_held(request)).count()
}

fn waited(process: &Process, result: &str) -> f64 {
    metric(process, &format!("file_puller_waits_total{{result=\"{result}\"}}"))
}

/// A puller that nothing but a held question tells of a change.
fn waiting(manager: &ContentManager, volume: &Volume, flags: &[&str]) -> Process {
    manager.waits(|answer| answer);
    let process = start_with_period(manager, volume, &[&["--period", "1h"], flags].concat());
    ready(&process);
    waits(&process);
    process
}

#[track_caller]
fn arrives(manager: &ContentManager, volume: &Volume, content: &str) {
    let began = Instant::now();
    manager.put("index.html", content);
    wait_until("it is published", || volume.tree() == manager.site().files);
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
}

#[test]
fn wait_edit_is_published_at_once() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let process = waiting(&manager, &volume, &[]);
    assert_eq!(status(&process)["next_sync"], Value::Null);
    assert!(metric(&process, "file_puller_waiting") > 0.5);
    for release in ["one", "two", "three"] {
        arrives(&manager, &volume, release);
        waits(&process);
    }
    assert!((waited(&process, "changed") - 3.0).abs() < 0.5);
    let requests = manager.upstream.requests();
    let first = requests.first().expect("it asked");
    assert_eq!(first.header("prefer"), Some("wait=0"), "the first release is not waited for");
    let last =
        requests.iter().rfind(|request| request.target() == "/site/index.html").expect("it was fetched");
    assert_eq!(last.header("sync-manifest"), Some(&*manager.site().etag()));
    let held = requests.iter().filter(|request| ContentManager::is_held(request));
    assert!(held.clone().all(|request| request.header("if-none-match").is_some()));
    assert!(held.clone().all(|request| request.header("prefer") == Some("wait=50")));
}

/// A question that is held for longer than a connection may live begins on a new one: it is where a name leads now that counts.
#[test]
fn wait_begins_on_a_connection_that_will_not_become_too_old() {
    for (flags, lives) in [(&[][..], false), (&["--max-connection-age", "1h"][..], true)] {
        let (manager, volume) = (ContentManager::start(SITE), Volume::new());
        let process = waiting(&manager, &volume, &[&["--concurrency", "1"], flags].concat());
        let before = manager.upstream.connections();
        for release in ["one", "two"] {
            let questions = held(&manager);
            arrives(&manager, &volume, release);
            wait_until("the next question has come", || held(&manager) > questions);
        }
        let more = manager.upstream.connections() - before;
        assert_eq!(more, if lives { 0 } else { 2 });
        drop(process);
    }
}

#[test]
fn wait_that_ends_with_304_is_a_success_and_asks_again() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let process = waiting(&manager, &volume, &["--wait", "1s"]);
    wait_until("it has asked three times", || waited(&process, "unchanged") >= 2.0 && held(&manager) >= 3);
    assert!(metric(&process, "file_puller_syncs_total{result=\"unchanged\"}") >= 2.0);
    assert!(metric(&process, "file_puller_staleness_seconds") < 5.0);
    assert!(!process.stderr().contains("sync failed"), "{}", process.stderr());
}

/// A question that is held says nothing for as long as it is held, and then there is `--read-timeout` for the answer.
#[test]
fn wait_and_read_timeout_add_up() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let process = waiting(&manager, &volume, &["--wait", "2s", "--read-timeout", "1s"]);
    wait_until("it was held to the end", || waited(&process, "unchanged") >= 1.0);
    assert!(waited(&process, "cut") + waited(&process, "failed") < 0.5, "{}", process.stderr());
    let first = Arc::new(OnceLock::new());
    let came = Arc::clone(&first);
    manager.fault(move |_, _| {
        came.get_or_init(Instant::now);
        Some(Answer::raw(|stream| drop(stream.read(&mut [0]))))
    });
    wait_until("it is given up", || waited(&process, "cut") + waited(&process, "failed") > 0.5);
    let took = first.get().expect("a question has come").elapsed();
    assert!(took > Duration::from_millis(2500) && took < Duration::from_secs(3) + AT_ONCE, "{took:?}");
}

#[test]
fn wait_is_not_asked_of_who_cannot() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let process = start_with_period(&manager, &volume, &["--period", "100ms"]);
    wait_until("it has asked five times", || manager.upstream.requests().len() > 5);
    assert_eq!(held(&manager), 0);
    assert_eq!(status(&process)["waiting"], false);
    assert_ne!(status(&process)["next_sync"], Value::Null);
}

#[test]
fn wait_off_says_nothing() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    manager.waits(|answer| answer);
    let _process = start_with_period(&manager, &volume, &["--period", "100ms", "--wait", "0s"]);
    wait_until("it has asked five times", || manager.upstream.requests().len() > 5);
    assert!(manager.upstream.requests().iter().all(|request| request.header("prefer").is_none()));
}

#[test]
fn wait_gives_way_to_who_asks() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let mut process = waiting(&manager, &volume, &[]);
    let began = Instant::now();
    assert_eq!(sync(&process)["result"], "unchanged");
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    waits(&process);
    let before = manager.upstream.requests().len();
    process.signal(Signal::HUP);
    wait_until("it asks", || manager.upstream.requests().len() > before);
    waits(&process);
    wait_until("each was interrupted", || waited(&process, "interrupted") >= 2.0);
    let began = Instant::now();
    assert!(process.terminate().success());
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
}

#[test]
fn wait_gives_way_to_a_verification() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let process = waiting(&manager, &volume, &["--verify-period", "1s"]);
    let file = volume.join("current/index.html");
    fs::write(&file, "damaged").expect("it can be written");
    wait_until("it is repaired", || volume.tree() == manager.site().files);
    arrives(&manager, &volume, "after that");
    assert!(waited(&process, "unchanged") < 0.5, "nothing had to be waited for to its end");
}

/// A proxy that cuts a question off, in the ways that proxies do.
fn cut(how: fn() -> Answer) {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    manager.fault(move |request, site| {
        let cut = || {
            std::thread::sleep(Duration::from_millis(200));
            how()
        };
        let is_held = ContentManager::is_held(request);
        let is_manifest = request.target() == "/site/manifest.json";
        let answer = || is_manifest.then(|| site.answer(request).with("Preference-Applied", "wait"));
        if is_held { Some(cut()) } else { answer() }
    });
    let process = start_with_period(&manager, &volume, &["--period", "300ms"]);
    wait_until("it was cut off again and again", || waited(&process, "cut") >= 4.0);
    manager.put("index.html", "new");
    wait_until("it arrives all the same", || volume.tree() == manager.site().files);
    let said = process.stderr();
    assert!(!said.contains("sync failed"), "{said}");
    assert_eq!(said.matches("consider a shorter --wait").count(), 1, "{said}");
    assert_eq!(status(&process)["failures_in_a_row"], 0);
}

#[test]
fn wait_through_a_proxy_that_closes() {
    cut(|| Answer::raw(|_| ()));
}

#[test]
fn wait_through_a_proxy_that_answers_504() {
    cut(|| Answer::new(504, ""));
}

#[test]
fn wait_through_a_proxy_that_answers_502() {
    cut(|| Answer::new(502, ""));
}

#[test]
fn wait_ends_with_an_outage_that_is_told() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let process = waiting(&manager, &volume, &["--max-backoff", "100ms"]);
    manager.upstream.answer(|_| Answer::raw(|_| ()));
    // Ends the question that is held.
    manager.touch();
    wait_until("it is told", || process.stderr().contains("sync failed"));
    manager.waits(|answer| answer);
    waits(&process);
    arrives(&manager, &volume, "after that");
}

#[test]
fn wait_that_is_not_held_is_not_asked_without_end() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    manager.fault(|request, site| {
        let is_manifest = request.target() == "/site/manifest.json";
        is_manifest.then(|| site.answer(request).with("Preference-Applied", "wait"))
    });
    let process = start(&manager, &volume, &[]);
    ready(&process);
    let began = Instant::now();
    wait_until("it has asked three times", || held(&manager) >= 3);
    assert!(began.elapsed() > Duration::from_millis(1500), "{:?}", began.elapsed());
}

#[test]
fn wait_that_many_share_steps_aside() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let process = waiting(&manager, &volume, &["--spread", "200ms"]);
    manager.waits(|answer| answer.with("Sync-Spread", "30"));
    // The question that is held now was asked before.
    arrives(&manager, &volume, "one");
    waits(&process);
    arrives(&manager, &volume, "two");
    // And it gives way as the waiting does.
    drop(process);
    let process = waiting(&manager, &volume, &["--spread", "1h"]);
    manager.waits(|answer| answer.with("Sync-Spread", "3600"));
    assert_eq!(sync(&process)["result"], "unchanged");
    waits(&process);
    manager.put("index.html", "three");
    let began = Instant::now();
    assert_eq!(sync(&process)["result"], "published");
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
}
