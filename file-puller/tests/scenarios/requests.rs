//! Syncs that somebody asks for, and what they are told.

use std::sync::mpsc;
use std::time::Duration;

use rustix::process::Signal;
use testkit::http::{get, request};
use testkit::{Answer, wait_until};

use crate::content::ContentManager;
use crate::puller::{Volume, metric, publishes, start, start_in_step, start_with_period, try_sync};

const SITE: &[(&str, &str)] = &[("index.html", "<h1>hello</h1>"), ("css/site.css", "a{}")];

#[test]
fn sync_on_post() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let process = start_in_step(&manager, &volume, &[]);
    manager.put("index.html", "new");
    let outcome = publishes(&process, &volume, &manager);
    assert_eq!(outcome["fetched_bytes"], 3);
    assert_eq!(request(process.addr("admin"), "GET", "/sync", &[]).status(), 405);
    let status = get(process.addr("admin"), "/status").json();
    assert_eq!(status["release"], outcome["release"]);
    assert_eq!(status["last_sync"]["outcome"], outcome);
    assert_eq!(status["source"], manager.url());
    manager.fault(|_, _| Some(Answer::new(503, "")));
    let answer = try_sync(&process);
    assert_eq!((answer.status(), &answer.json()["release"]), (502, &outcome["release"]));
}

#[test]
fn sync_on_sighup() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let process = start_in_step(&manager, &volume, &[]);
    let before = volume.current();
    manager.put("index.html", "new");
    process.signal(Signal::HUP);
    wait_until("the next release", || volume.current() != before);
    assert_eq!(volume.tree(), manager.site().files);
}

#[test]
fn sync_on_period() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let process = start_with_period(&manager, &volume, &["--period", "50ms"]);
    wait_until("the first release", || volume.current().is_some());
    let before = volume.current();
    manager.put("index.html", "new");
    wait_until("the next release", || volume.current() != before);
    wait_until("it is counted", || metric(&process, "file_puller_syncs_total{result=\"published\"}") >= 2.0);
}

/// Whoever asks while a sync is running is answered by the next one, all of them by the same.
#[test]
fn sync_burst_coalesces() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let process = start_in_step(&manager, &volume, &[]);
    let (go, gate) = mpsc::channel::<()>();
    let gate = std::sync::Mutex::new(gate);
    manager.fault(move |_, _| {
        let _released = gate.lock().expect("no holder panics").recv_timeout(Duration::from_secs(20));
        None
    });
    process.signal(Signal::HUP);
    wait_until("a sync is running", || manager.asked().len() == 1);
    let addr = process.addr("admin");
    std::thread::scope(|threads| {
        let burst: Vec<_> =
            (0..10).map(|_| threads.spawn(move || request(addr, "POST", "/sync", &[]).status())).collect();
        for _ in 0..3 {
            process.signal(Signal::HUP);
        }
        // All ten are connected and have sent their request when they appear in the kernel's table; the last of them is
        // read by the same loop that reads this one.
        wait_until("the burst has arrived", || {
            connections_to(addr.port()) >= 10 && get(addr, "/livez").status() == 200
        });
        drop(go);
        assert!(burst.into_iter().all(|one| one.join().expect("it ended") == 200));
    });
    // The one that was running, one for the burst, and at most one for the signals that came with it.
    wait_until("calm", || manager.asked().len() >= 2);
    assert!(manager.asked().len() <= 3, "{:?}", manager.asked());
}

fn connections_to(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/self/net/tcp").expect("Linux has it");
    let local = format!(":{port:04X}");
    let established = |line: &&str| {
        let mut fields = line.split_whitespace().skip(1);
        let (local_addr, state) = (fields.next(), fields.nth(1));
        local_addr.is_some_and(|addr| addr.ends_with(&local)) && state == Some("01")
    };
    table.lines().filter(established).count()
}

#[test]
fn first_sync_answers_who_asks_before_it() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let process = start(&manager, &volume, &[]);
    assert_eq!(try_sync(&process).status(), 200);
    assert_eq!(volume.tree(), manager.site().files);
}
