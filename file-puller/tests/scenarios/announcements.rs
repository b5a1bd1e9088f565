//! The webhook: who is told of a release, and what happens when nobody listens.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use testkit::http::get;
use testkit::{Answer, Process, Upstream, wait_until};

use crate::content::ContentManager;
use crate::puller::{Volume, metric, publishes, start_in_step, sync};

const SITE: &[(&str, &str)] = &[("index.html", "<h1>hello</h1>")];

fn start(manager: &ContentManager, volume: &Volume, hook: &Upstream) -> Process {
    let url = hook.url("/hooks/s3cr3t-path?k=s3cr3t-query");
    start_in_step(manager, volume, &["--webhook", &url, "--max-backoff", "50ms", "--read-timeout", "300ms"])
}

/// The releases that were announced, in order.
fn told(hook: &Upstream) -> Vec<String> {
    let release = |body: serde_json::Value| body["release"].as_str().expect("a release").to_owned();
    hook.requests().iter().map(|request| release(request.json())).collect()
}

#[test]
fn webhook_ok() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let hook = Upstream::start(|_| Answer::new(204, ""));
    let process = start(&manager, &volume, &hook);
    let first = volume.current().expect("published");
    wait_until("it is announced", || told(&hook) == [first.clone()]);
    let request = &hook.requests()[0];
    assert_eq!(request.start, "POST /hooks/s3cr3t-path?k=s3cr3t-query HTTP/1.1");
    assert_eq!(request.json()["source"], manager.url());
    manager.put("index.html", "new");
    publishes(&process, &volume, &manager);
    let second = volume.current().expect("published");
    wait_until("it is announced", || told(&hook) == [first.clone(), second.clone()]);
    assert_eq!(sync(&process)["result"], "unchanged");
    assert!((metric(&process, "file_puller_webhook_posts_total{result=\"delivered\"}") - 2.0).abs() < 0.5);
    assert_eq!(told(&hook).len(), 2, "what has not changed is not announced again");
}

#[test]
fn webhook_500_then_ok() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let asked = AtomicUsize::new(0);
    let hook = Upstream::start(move |_| {
        Answer::new(if asked.fetch_add(1, Ordering::Relaxed) < 3 { 500 } else { 200 }, "")
    });
    let process = start(&manager, &volume, &hook);
    wait_until("it is delivered", || {
        metric(&process, "file_puller_webhook_posts_total{result=\"delivered\"}") >= 1.0
    });
    let release = volume.current().expect("published");
    assert_eq!(told(&hook), vec![release; 4]);
    let said = process.stderr() + get(process.addr("admin"), "/status").text();
    assert!(said.contains("it answers 500") && !said.contains("s3cr3t"), "{said}");
}

#[test]
fn webhook_slow() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let hook = Upstream::start(|_| Answer::raw(|stream| drop(std::io::Read::read(stream, &mut [0]))));
    let process = start(&manager, &volume, &hook);
    wait_until("somebody hangs", || !hook.requests().is_empty());
    // Publishing goes on meanwhile, and is not slowed down.
    let started = std::time::Instant::now();
    for release in 0..5 {
        manager.put("index.html", release.to_string());
        publishes(&process, &volume, &manager);
    }
    assert!(started.elapsed() < Duration::from_secs(5));
    hook.answer(|_| Answer::new(200, ""));
    wait_until("the newest wins", || told(&hook).last() == volume.current().as_ref());
}
