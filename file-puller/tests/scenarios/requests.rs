//! Syncs that somebody asks for, and what they are told.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::Signal;
use testkit::http::{get, request};
use testkit::{Answer, Process, wait_until};

use crate::content::ContentManager;
use crate::puller::{BINARY, Volume, metric, publishes, start, start_in_step, start_with_period, try_sync};

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
    // What was done for the release stays to be asked for, however later syncs go.
    let status = get(process.addr("admin"), "/status").json();
    assert_eq!(status["publication"]["release"], outcome["release"]);
    assert_eq!(status["publication"]["fetched_files"], 1);
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

/// Connections to a port of 127.0.0.1 that are made, by the kernel's table.
pub(crate) fn connections_to(port: u16) -> usize {
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

/// An address of this machine that is not loopback. Choosing a route sends nothing.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a free port");
    let own = socket.connect((ELSEWHERE, 9)).and_then(|()| socket.local_addr()).ok()?;
    Some(own.ip()).filter(|own| !own.is_loopback())
}

/// Reserved for documentation: nobody's, until a test takes it for its own.
const ELSEWHERE: &str = "192.0.2.1";

/// Runs a test of this program again, in a network namespace whose one machine is [`ELSEWHERE`].
#[track_caller]
fn again_with_an_address(test: &str) {
    assert!(own_address().is_none() && std::env::var_os("AGAIN").is_none(), "no address for {test}");
    let script = "ip link set lo up && ip address add \"$0\" dev lo && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["-rn", "sh", "-c", script, ELSEWHERE]).arg(std::env::current_exe().expect("it runs"));
    let ran = command.args(["--exact", test]).env("AGAIN", "").output().expect("util-linux is there");
    assert!(ran.status.success(), "this machine has no network, and in one of its own: {ran:?}");
}

/// What changes state is for neighbours in the Pod. From the machine's own address on its network, a request is not.
#[test]
fn post_from_other_address() {
    let Some(own) = own_address() else {
        return again_with_an_address("requests::post_from_other_address");
    };
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let mut command = Command::new(BINARY);
    command.args(["--source", &manager.url(), "--period", "1h", "--admin-addr", "0.0.0.0:0"]);
    command.args(["--log-format", "json", "--volume"]).arg(volume.path());
    let process = Process::start_as_is(command);
    let port = process.addr("admin").port();
    let from_outside = SocketAddr::new(own, port);
    // Not when `current` is there: that it is on the disk, too, takes a moment longer.
    wait_until("the first sync", || get(from_outside, "/readyz").status() == 200);
    let asked = manager.asked().len();
    let answer = request(from_outside, "POST", "/sync", &[]);
    assert_eq!((answer.status(), answer.text().contains("localhost")), (403, true), "{}", answer.text());
    assert_eq!(get(from_outside, "/readyz").status(), 200, "probes come from there");
    // This one waits its turn behind whatever the refused one might have begun.
    assert_eq!(request(([127, 0, 0, 1], port).into(), "POST", "/sync", &[]).status(), 200);
    assert_eq!(manager.asked().len(), asked + 1);
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
    let metrics = get(process.addr("admin"), "/metrics").text().to_owned();
    let releases: Vec<_> =
        metrics.lines().filter_map(|line| line.strip_prefix("file_puller_release_info{")).collect();
    assert_eq!(releases, [format!("release=\"{}\"}} 1", volume.current().expect("published"))]);
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
