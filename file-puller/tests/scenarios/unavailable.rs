//! A content manager that is down, slow, or sends us elsewhere: what was published stays, and the puller comes back by itself.

use std::io::Write as _;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use testkit::http::get;
use testkit::{Answer, Upstream, wait_until};

use crate::content::ContentManager;
use crate::puller::{
    Volume, metric, once, publishes, readyz, start, start_from, start_in_step, start_with_period, try_sync,
};

const SITE: &[(&str, &str)] = &[("index.html", "<h1>hello</h1>"), ("css/site.css", "a{}")];

#[test]
fn status_500_then_ok() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let process = start_with_period(&manager, &volume, &["--period", "100ms", "--max-backoff", "200ms"]);
    wait_until("the first release", || volume.current().is_some());
    let before = volume.current();
    manager.fault(|_, _| Some(Answer::new(500, "no")));
    wait_until("it is said", || {
        metric(&process, "file_puller_sync_failures_total{reason=\"status\"}") >= 3.0
    });
    let event = process.event("a failed sync", |event| event["message"] == "sync failed");
    let error = event["error"].as_str().expect("an error");
    assert!(error.ends_with("/site/manifest.json: it answers 500 Internal Server Error"), "{error}");
    assert_eq!(volume.current(), before);
    assert_eq!(readyz(&process).status(), 200, "old content is ready content");
    manager.put("index.html", "new");
    manager.recover();
    wait_until("the next release", || volume.current() != before);
    assert_eq!(volume.tree(), manager.site().files);
}

/// What a content manager says for people beside the status, in one line and escaped; a page of HTML is not for a log.
#[test]
fn status_503_with_the_reason() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let failure = |content_type: &'static str, body: &'static str| {
        manager.fault(move |_, _| Some(Answer::new(503, body).with("Content-Type", content_type)));
        let (code, stderr) = once(&manager.url(), &volume.path(), &[]);
        assert_eq!(code, 69, "{stderr}");
        stderr
    };
    let stderr = failure("text/plain; charset=utf-8", "index.html: Permission denied\u{1b}[31m\nmore");
    assert!(
        stderr.trim_end().ends_with("503 Service Unavailable: index.html: Permission denied\\u{1b}[31m"),
        "{stderr}"
    );
    let stderr = failure("text/html", "<h1>sorry</h1>");
    assert!(stderr.trim_end().ends_with("it answers 503 Service Unavailable"), "{stderr}");
}

#[test]
fn status_429_with_retry_after() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let times = Arc::clone(&asked);
    manager.fault(move |_, _| {
        times.lock().expect("no holder panics").push(Instant::now());
        Some(Answer::new(429, "").with("Retry-After", "1"))
    });
    let _process = start_with_period(&manager, &volume, &["--period", "10ms", "--max-backoff", "20ms"]);
    wait_until("it asks again", || asked.lock().expect("no holder panics").len() == 2);
    manager.recover();
    wait_until("it recovers", || volume.current().is_some());
    let asked = asked.lock().expect("no holder panics");
    assert!(asked[1] - asked[0] >= Duration::from_secs(1), "Retry-After is a floor");
}

#[test]
fn connection_refused() {
    let volume = Volume::new();
    let manager = ContentManager::start(SITE);
    let process = start_with_period(&manager, &volume, &["--period", "100ms", "--max-backoff", "200ms"]);
    wait_until("the first release", || volume.current().is_some());
    let (addr, site) = (manager.upstream.addr(), manager.site().clone());
    drop(manager);
    wait_until("it is said", || {
        metric(&process, "file_puller_sync_failures_total{reason=\"unreachable\"}") >= 2.0
    });
    assert_eq!(volume.tree(), site.files);
    let _back = Upstream::start_on(addr, move |request| site.answer(request));
    let ended = || metric(&process, "file_puller_syncs_total{result=\"unchanged\"}");
    let before = ended();
    wait_until("it recovers", || ended() > before);
}

#[test]
fn upstream_gone_for_long() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let flags = ["--max-staleness", "500ms", "--period", "50ms", "--max-backoff", "100ms"];
    let process = start_with_period(&manager, &volume, &flags);
    wait_until("ready", || readyz(&process).status() == 200);
    drop(manager);
    wait_until("no longer ready", || readyz(&process).status() == 503);
    assert!(readyz(&process).text().contains("beyond --max-staleness 500ms"), "{}", readyz(&process).text());
    assert_eq!(get(process.addr("admin"), "/livez").status(), 200);
    let stale = metric(&process, "file_puller_staleness_seconds");
    assert!(stale >= 0.5, "{stale}");
    wait_until("it grows", || metric(&process, "file_puller_staleness_seconds") > stale);
    assert_eq!(volume.tree().len(), SITE.len());
}

#[test]
fn no_response() {
    let volume = Volume::new();
    let manager = ContentManager::start(SITE);
    let process = start_in_step(&manager, &volume, &["--read-timeout", "200ms"]);
    manager.fault(|_, _| Some(Answer::raw(|stream| drop(std::io::Read::read(stream, &mut [0])))));
    let answer = try_sync(&process).json();
    assert_eq!(answer["reason"], "unreachable");
    assert!(answer["error"].as_str().is_some_and(|error| error.contains("--read-timeout")), "{answer}");
    // A body that stops is no better than none.
    manager.put("index.html", "new");
    manager.fault(|request, _| {
        request.target().ends_with("index.html").then(|| {
            Answer::raw(|stream| {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nn").expect("it listens");
                drop(std::io::Read::read(stream, &mut [0]));
            })
        })
    });
    assert_eq!(try_sync(&process).json()["reason"], "unreachable");
    manager.recover();
    publishes(&process, &volume, &manager);
}

/// A connection that nobody accepts stays in the kernel's queue: connected, and silent.
#[test]
fn nobody_accepts() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}/manifest.json", listener.local_addr().expect("an address"));
    let (code, stderr) = once(&url, &Volume::new().path(), &["--read-timeout", "100ms"]);
    assert_eq!(code, 69, "{stderr}");
}

#[test]
fn dns_failure() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let nowhere = "http://no-such-host.invalid/manifest.json";
    let (code, stderr) = once(nowhere, &volume.path(), &["--log-level", "error"]);
    assert_eq!((code, stderr.lines().count()), (69, 1), "{stderr}");
    assert!(stderr.contains("no-such-host.invalid") && !stderr.contains("Query {"), "{stderr}");
    // A name that is no longer known: what was published stays, and it is tried again and again.
    start_in_step(&manager, &volume, &[]).kill();
    let before = volume.snapshot();
    let mut process = start_from(nowhere, &volume, &["--period", "50ms", "--max-backoff", "100ms"]);
    wait_until("it backs off", || {
        metric(&process, "file_puller_sync_failures_total{reason=\"unreachable\"}") >= 3.0
    });
    assert_eq!(readyz(&process).status(), 200);
    process.kill();
    assert_eq!(volume.snapshot(), before);
    // And known again.
    let process = start_in_step(&manager, &volume, &[]);
    manager.put("index.html", "new");
    publishes(&process, &volume, &manager);
}

#[test]
fn redirect_same_origin() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    manager.fault(|request, _| {
        (request.target() == "/site/css/site.css")
            .then(|| Answer::new(302, "").with("Location", "/moved/site.css"))
    });
    let process = start(&manager, &volume, &[]);
    assert_eq!(try_sync(&process).json()["reason"], "mismatch", "/moved/ is not there yet");
    manager.fault(|request, _| match request.target() {
        "/site/css/site.css" => Some(Answer::new(302, "").with("Location", "/moved/site.css")),
        "/moved/site.css" => Some(Answer::new(200, "a{}")),
        _ => None,
    });
    publishes(&process, &volume, &manager);
}

#[test]
fn redirect_other_origin() {
    let other = ContentManager::start(SITE);
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let to = other.url() + "?token=hidden";
    manager.fault(move |_, _| Some(Answer::new(302, "").with("Location", &to)));
    let (code, stderr) = once(&manager.url(), &volume.path(), &[]);
    assert_eq!(code, 78, "{stderr}");
    assert!(stderr.contains(&other.url()) && stderr.contains("another origin"), "{stderr}");
    assert!(!stderr.contains("hidden"), "{stderr}");
    assert_eq!(other.asked(), [] as [&str; 0]);
    volume.assert_nothing_written();
}

#[test]
fn redirect_loop() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    manager.fault(|_, _| Some(Answer::new(302, "").with("Location", "/site/manifest.json")));
    let (code, stderr) = once(&manager.url(), &volume.path(), &[]);
    assert_eq!(code, 78, "{stderr}");
    assert!(stderr.contains("redirects more than 5 times"), "{stderr}");
    assert!(manager.asked().len() <= 6);
}
