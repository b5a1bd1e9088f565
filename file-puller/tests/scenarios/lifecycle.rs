//! How the puller starts and ends: flags, exit codes, signals.

use std::process::Command;
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::Instant;

use rustix::process::Signal;
use testkit::http::{get, request};
use testkit::process::run;
use testkit::{Answer, Process, wait_until};

use crate::content::ContentManager;
use crate::puller::{BINARY, Volume, once, start, start_in_step, sync};
use crate::requests::connections_to;

const SITE: &[(&str, &str)] = &[("index.html", "<h1>hello</h1>"), ("css/site.css", "a{}")];

#[test]
fn once_ok() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    for _ in 0..2 {
        let (code, stderr) = once(&manager.url(), &volume.path(), &["--log-level", "warn"]);
        assert_eq!((code, stderr.as_str()), (0, ""));
        assert_eq!(volume.tree(), manager.site().files);
    }
    assert_eq!(volume.releases().len(), 1);
}

#[test]
fn once_unreachable() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let (code, _) = once(&manager.url(), &volume.path(), &[]);
    assert_eq!(code, 0);
    manager.fault(|_, _| Some(Answer::new(503, "")));
    let (code, stderr) = once(&manager.url(), &volume.path(), &["--log-level", "error"]);
    assert_eq!((code, stderr.lines().count()), (69, 1), "{stderr}");
    assert!(stderr.contains("it answers 503 Service Unavailable"), "{stderr}");
    let (url, addr) = (manager.url(), manager.upstream.addr());
    drop(manager);
    wait_until("nobody listens there", || std::net::TcpStream::connect(addr).is_err());
    let (code, stderr) = once(&url, &volume.path(), &["--log-level", "error"]);
    assert_eq!((code, stderr.lines().count()), (69, 1), "{stderr}");
    assert!(stderr.contains(&url) && stderr.contains("Connection refused"), "{stderr}");
    assert_eq!(volume.tree().len(), 2, "the last good release stays");
}

#[test]
fn sigterm_mid_sync() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    manager.put("large", vec![1; 2_000_000]);
    manager.fault(|request, _| {
        request.target().ends_with("/large").then(|| {
            Answer::raw(|stream| {
                use std::io::{Read as _, Write as _};
                let half =
                    [b"HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\n".to_vec(), vec![1; 1_000_000]]
                        .concat();
                stream.write_all(&half).expect("it listens");
                drop(stream.read(&mut [0]));
            })
        })
    });
    let mut process = start(&manager, &volume, &["--shutdown-timeout", "5s"]);
    wait_until("half of it is asked for", || manager.asked().contains(&"/site/large".to_owned()));
    wait_until("half of it is staged", || {
        let large = volume.staging().into_iter().map(|name| volume.staged(&name).join("large"));
        let mut sizes = large.filter_map(|file| file.metadata().ok()).map(|file| file.len());
        sizes.any(|size| size > 500_000)
    });
    let asked = Instant::now();
    assert!(process.terminate().success());
    assert!(asked.elapsed().as_secs() < 5);
    assert_eq!(volume.current(), None);
    manager.recover();
    let process = start_in_step(&manager, &volume, &[]);
    assert_eq!(volume.staging(), [] as [&str; 0]);
    assert_eq!(volume.releases().len(), 1);
    drop(process);
}

#[test]
fn sigterm_while_waiting() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let mut process = start_in_step(&manager, &volume, &[]);
    assert!(process.terminate().success());
    assert!(!process.stderr().contains("ERROR"), "{}", process.stderr());
}

/// A content manager that answers once it is let, and then correctly.
fn held_back(manager: &ContentManager) -> mpsc::Sender<()> {
    let (go, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    manager.fault(move |_, _| {
        // Ends when the test lets go of the other side.
        let _released = gate.lock().expect("no holder panics").recv();
        None
    });
    go
}

fn draining(process: &Process) {
    process.event("the drain begins", |event| {
        event["message"].as_str().is_some_and(|message| message.starts_with("draining"))
    });
}

#[test]
fn sigterm_finishes_the_sync_that_was_asked_for() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let mut process = start_in_step(&manager, &volume, &[]);
    manager.put("index.html", "new");
    let go = held_back(&manager);
    let addr = process.addr("admin");
    let asker = thread::spawn(move || request(addr, "POST", "/sync", &[]));
    wait_until("the sync has begun", || manager.asked().len() == 1);
    // Behind it waits another, who asked too late for this one.
    let late = thread::spawn(move || request(addr, "POST", "/sync", &[]));
    wait_until("both have asked", || connections_to(addr.port()) == 2 && get(addr, "/livez").status() == 200);
    process.signal(Signal::TERM);
    draining(&process);
    assert_eq!(get(addr, "/readyz").status(), 503, "the admin server answers through the drain");
    drop(go);
    let answer = asker.join().expect("it was answered");
    assert_eq!(
        (answer.status(), answer.json()["result"].as_str()),
        (200, Some("published")),
        "{}",
        answer.text()
    );
    let answer = late.join().expect("it was answered");
    assert_eq!(
        (answer.status(), answer.json()["result"].as_str()),
        (503, Some("refused")),
        "{}",
        answer.text()
    );
    assert!(answer.text().contains("stopping"), "{}", answer.text());
    assert!(process.wait().success());
    assert_eq!(volume.tree(), manager.site().files);
}

#[test]
fn sigterm_waits_no_longer_than_it_may() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let mut process = start_in_step(&manager, &volume, &["--shutdown-timeout", "300ms"]);
    manager.put("index.html", "new");
    let go = held_back(&manager);
    let addr = process.addr("admin");
    let asker = thread::spawn(move || request(addr, "POST", "/sync", &[]));
    wait_until("the sync has begun", || manager.asked().len() == 1);
    let before = (volume.current(), volume.tree());
    assert!(process.terminate().success());
    let answer = asker.join().expect("it was answered");
    assert_eq!((answer.status(), answer.text().contains("stopping")), (503, true), "{}", answer.text());
    assert!(process.stderr().contains("longer than --shutdown-timeout"), "{}", process.stderr());
    assert_eq!((volume.current(), volume.tree()), before);
    drop(go);
}

#[test]
fn wrong_flags_are_one_line() {
    let source = ["--source", "http://127.0.0.1:1/manifest.json"];
    let volume = ["--volume", "/nowhere"];
    for (args, what) in [
        (vec![], "--source"),
        (vec![source[0], source[1]], "--volume"),
        (vec!["--sorce", "x"], "--source"),
        (vec![source[0], "http://127.0.0.1:1/site.zip", volume[0], volume[1]], "cannot be unpacked"),
        (
            vec![source[0], "http://me:pw@127.0.0.1:1/manifest.json", volume[0], volume[1]],
            "must not carry a user or password",
        ),
        (vec![source[0], source[1], volume[0], volume[1], "--period", "0s"], "more than zero"),
        (
            vec![source[0], source[1], volume[0], volume[1], "--verify-period", "18446744073709551615s"],
            "too long",
        ),
        (vec![source[0], source[1], volume[0], volume[1], "--concurrency", "0"], "at least 1"),
        (vec![source[0], source[1], volume[0], volume[1], "manifest", "."], "manifest"),
    ] {
        let (code, stdout, stderr) = run(BINARY, &args);
        assert_eq!((code, stdout.as_str(), stderr.lines().count()), (64, "", 1), "{args:?}: {stderr}");
        assert!(stderr.contains(what), "{stderr}");
    }
}

#[test]
fn the_readme_has_all_flags() {
    let readme = include_str!("../../README.md");
    for command in [&[][..], &["manifest"]] {
        testkit::process::assert_documents_all_flags(readme, env!("CARGO_BIN_EXE_file-puller"), command);
    }
}

/// In an image the flags are environment variables, and they are there for the subcommands as well.
#[test]
fn flags_may_be_environment_variables() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let in_environment = |arguments: &[&str]| {
        let mut command = Command::new(BINARY);
        command.args(arguments);
        command.env("FILE_PULLER_SOURCE", manager.url()).env("FILE_PULLER_VOLUME", volume.path());
        command.env("FILE_PULLER_PERIOD", "1h");
        command
    };
    let process = Process::start_command(in_environment(&[]));
    assert_eq!(sync(&process)["result"], "unchanged");
    let addr = process.addr("admin").to_string();
    let mut check = in_environment(&["healthcheck"]);
    check.env("FILE_PULLER_ADMIN_ADDR", &addr);
    assert!(Process::start_as_is(check).wait().success());
    drop(process);
    let mut check = in_environment(&["healthcheck"]);
    check.env("FILE_PULLER_ADMIN_ADDR", &addr);
    assert_eq!(Process::start_as_is(check).wait().code(), Some(69));
}

#[test]
fn a_taken_port_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = taken.local_addr().expect("an address").to_string();
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let (url, path) = (manager.url(), volume.path());
    let flags = ["--source", &url, "--volume", path.to_str().expect("UTF-8"), "--admin-addr", &addr];
    let (code, _, stderr) = run(BINARY, flags);
    assert_eq!(code, 69);
    assert!(stderr.contains(&addr) && stderr.contains("--admin-addr"), "{stderr}");
}
