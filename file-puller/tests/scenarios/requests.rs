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

/// What changes state is for neighbours in the Pod. From the machine's own address on its network, a request is not.
#[test]
fn post_from_other_address() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let mut command = std::process::Command::new(crate::puller::BINARY);
    command.args(["--source", &manager.url(), "--period", "1h", "--admin-addr", "0.0.0.0:0"]);
    command.args(["--log-format", "json", "--volume"]).arg(volume.path());
    let process = testkit::Process::start_as_is(command);
    let port = process.addr("admin").port();
    wait_until("the first sync", || volume.current().is_some());
    let asked = manager.asked().len();
    // Choosing a route sends nothing. A machine without a network has only loopback, where everything else is tested.
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").expect("a free port");
    let own = socket.connect("192.0.2.1:9").and_then(|()| socket.local_addr());
    if let Ok(own) = own
        && !own.ip().is_loopback()
    {
        let addr = std::net::SocketAddr::new(own.ip(), port);
        let answer = request(addr, "POST", "/sync", &[]);
        assert_eq!((answer.status(), answer.text().contains("localhost")), (403, true), "{}", answer.text());
        assert_eq!(get(addr, "/readyz").status(), 200, "probes come from there");
    }
    assert_eq!(manager.asked().len(), asked);
    assert_eq!(request(([127, 0, 0, 1], port).into(), "POST", "/sync", &[]).status(), 200);
    assert_eq!(manager.asked().len(), asked + 1);
}

#[test]
fn proxy_from_the_environment() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    manager.fault(|request, site| {
        let path = request.target().strip_prefix("http://content.example").expect("through the proxy");
        let mut direct = request.clone();
        direct.start = format!("GET {path} HTTP/1.1");
        Some(site.answer(&direct))
    });
    let mut command = std::process::Command::new(crate::puller::BINARY);
    command.args(["--once", "--source", "http://content.example/site/manifest.json", "--volume"]);
    command.arg(volume.path()).env("HTTP_PROXY", manager.upstream.url("")).env_remove("NO_PROXY");
    let mut process = testkit::Process::start_as_is(command);
    assert!(process.wait().success(), "{}", process.stderr());
    assert_eq!(volume.tree(), manager.site().files);
}

#[test]
fn metrics_say_what_a_sync_took() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let process = start_in_step(&manager, &volume, &[]);
    manager.put("index.html", "new");
    publishes(&process, &volume, &manager);
    let value = |name: &str| metric(&process, &format!("file_puller_{name}"));
    for phase in ["plan", "link", "fetch", "publish"] {
        // `plan` also of the sync that asked and was told of the change.
        assert!(value(&format!("phase_duration_seconds_count{{phase=\"{phase}\"}}")) >= 2.0, "{phase}");
    }
    assert!((value("release_size_bytes") - 6.0).abs() < 0.1);
    assert!(value("volume_free_bytes") > 0.0);
    assert!((value("fetched_files_total") - 3.0).abs() < 0.1);
    assert!((value("reused_files_total") - 1.0).abs() < 0.1);
    // A file that is not what the manifest says: asked for again, in vain.
    manager.fault(|request, _| request.target().ends_with("css").then(|| Answer::new(200, "x{}")));
    manager.put("css/site.css", "b{}");
    assert_eq!(try_sync(&process).json()["reason"], "mismatch");
    assert!((value("retries_total{what=\"manifest\"}") - 1.0).abs() < 0.1);
    assert!((value("sync_failures_total{reason=\"mismatch\"}") - 1.0).abs() < 0.1);
}
