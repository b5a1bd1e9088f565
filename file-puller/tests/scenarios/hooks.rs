//! What others are told of a release, and asked about it: the touched file, the webhook's method, the HTTP gate. And how long a
//! sync may take.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use testkit::{Answer, Upstream, wait_until};

use crate::content::ContentManager;
use crate::puller::{
    Volume, fails, metric, names, once, publishes, start, start_in_step, start_when_asked, start_with_period,
    sync, tree, try_sync,
};
use crate::tarball::{gzip, tar};

const SITE: &[(&str, &str)] = &[("index.html", "<h1>hello</h1>"), ("css/site.css", "a{}")];

fn modified(path: &Path) -> SystemTime {
    fs::metadata(path).and_then(|metadata| metadata.modified()).expect("it is there")
}

#[test]
fn touch_file_says_when_a_release_came() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    for touched in [volume.above().join("touched"), volume.join("touched")] {
        let flags = ["--touch-file", touched.to_str().expect("UTF-8")];
        let process = start_in_step(&manager, &volume, &flags);
        // Also where the release was there already: whoever waits for it may be new.
        let first = modified(&touched);
        assert_eq!(sync(&process)["result"], "unchanged");
        assert_eq!(modified(&touched), first, "nothing new");
        let content = format!("for {}", touched.display());
        manager.put("index.html", content);
        wait_until("a later time", || SystemTime::now() > first + Duration::from_millis(10));
        publishes(&process, &volume, &manager);
        wait_until("it is touched", || modified(&touched) > first);
        drop(process);
    }
    // It is no part of a release, and no foreign file either.
    assert!(names(&volume.path()).contains(&"touched".to_owned()));
    assert_eq!(volume.tree(), manager.site().files);
    let inside = volume.join("current/touched");
    let (code, stderr) =
        once(&manager.url(), &volume.path(), &["--touch-file", inside.to_str().expect("UTF-8")]);
    assert_eq!((code, stderr.lines().count()), (64, 1), "{stderr}");
    assert!(stderr.contains("--touch-file"), "{stderr}");
}

#[test]
fn touch_file_of_once() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let touched = volume.above().join("touched");
    let (code, stderr) =
        once(&manager.url(), &volume.path(), &["--touch-file", touched.to_str().expect("UTF-8")]);
    assert_eq!(code, 0, "{stderr}");
    assert!(touched.exists());
    // Where it cannot be touched, the content is there all the same.
    let nowhere = volume.above().join("no/such/touched");
    let (code, stderr) =
        once(&manager.url(), &volume.path(), &["--touch-file", nowhere.to_str().expect("UTF-8")]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("cannot touch"), "{stderr}");
}

#[test]
fn sync_timeout_ends_what_takes_too_long() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let process = start_in_step(&manager, &volume, &["--sync-timeout", "3s"]);
    let before = volume.current();
    manager.put("index.html", "n".repeat(1000));
    manager.fault(|request, _| {
        // Never silent for long, and never done.
        request.target().ends_with("index.html").then(|| {
            Answer::raw(|stream| {
                use std::io::Write as _;
                let mut sent = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
                while sent.is_ok() {
                    std::thread::sleep(Duration::from_millis(500));
                    sent = stream.write_all(b"n");
                }
            })
        })
    });
    let outcome = fails(&process, 502, "timeout");
    assert!(outcome["error"].as_str().is_some_and(|error| error.contains("--sync-timeout 3s")));
    assert_eq!(volume.current(), before);
    assert!(metric(&process, "file_puller_sync_failures_total{reason=\"timeout\"}") >= 1.0);
    manager.recover();
    publishes(&process, &volume, &manager);
    manager.fault(|_, _| Some(Answer::raw(|stream| drop(std::io::Read::read(stream, &mut [0])))));
    let (code, stderr) = once(&manager.url(), &Volume::new().path(), &["--sync-timeout", "100ms"]);
    assert_eq!(code, 69, "{stderr}");
    assert!(stderr.contains("--sync-timeout"), "{stderr}");
}

#[test]
fn webhook_method_and_status() {
    for (flags, method, status) in [
        (&["--webhook-method", "PUT"][..], "PUT", 204),
        (&["--webhook-method", "patch", "--webhook-success-status", "409"][..], "PATCH", 409),
        (&["--webhook-success-status", "0"][..], "POST", 500),
        (&["--webhook-success-status", "200"][..], "POST", 200),
    ] {
        let (manager, volume) = (ContentManager::start(SITE), Volume::new());
        let hook = Upstream::start(move |_| Answer::new(status, ""));
        let url = hook.url("/hook");
        let process = start_in_step(&manager, &volume, &[&["--webhook", &url][..], flags].concat());
        wait_until("it is delivered", || {
            metric(&process, "file_puller_webhook_posts_total{result=\"delivered\"}") >= 1.0
        });
        assert_eq!(hook.requests()[0].start, format!("{method} /hook HTTP/1.1"));
    }
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let hook = Upstream::start(move |_| Answer::new(204, ""));
    let url = hook.url("/hook");
    let flags = ["--webhook", &url, "--webhook-success-status", "200", "--max-backoff", "50ms"];
    let process = start_in_step(&manager, &volume, &flags);
    wait_until("it is tried again", || hook.requests().len() >= 3);
    assert!(hook.connections() >= 3, "each on a connection of its own");
    assert!(process.stderr().contains("it answers 204"), "{}", process.stderr());
    for wrong in
        [["--webhook-method", "P T"], ["--webhook-success-status", "99"], ["--webhook-method", "GET"]]
    {
        let (code, stderr) = once(&manager.url(), &volume.path(), &wrong);
        assert_eq!((code, stderr.lines().count()), (64, 1), "{stderr}");
    }
}

/// What a gate was asked: the tree as it was when it was asked, beside the request.
type Asked = Arc<Mutex<Vec<(String, crate::content::Tree)>>>;

/// A neighbour that mounts the volume, and lets pass what has no `bad` in it.
fn gate(asked: &Asked) -> Upstream {
    let asked = Arc::clone(asked);
    Upstream::start(move |request| {
        let staged = tree(Path::new(request.header("sidecar-tree").expect("it is said")));
        let bad = staged.values().any(|(_, content)| content == b"bad");
        asked.lock().expect("no holder panics").push((request.start.clone(), staged));
        if bad { Answer::new(422, "index.html is bad\nand more\u{9b}") } else { Answer::new(204, "") }
    })
}

#[test]
fn gate_is_asked_before_publishing() {
    let (manager, volume, asked) = (ContentManager::start(SITE), Volume::new(), Asked::default());
    let gate = gate(&asked);
    let url = gate.url("/s3cr3t-check?x=s3cr3t");
    let process = start_in_step(&manager, &volume, &["--gate", &url]);
    let first = volume.current();
    {
        let asked = asked.lock().expect("no holder panics");
        assert_eq!(asked.len(), 1);
        assert_eq!(
            asked[0],
            ("POST /s3cr3t-check?x=s3cr3t HTTP/1.1".to_owned(), manager.site().files.clone())
        );
    }
    let request = &gate.requests()[0];
    assert_eq!(request.header("sidecar-release"), first.as_deref());
    assert_eq!(request.header("sidecar-source"), Some(manager.url().as_str()));
    assert_eq!(request.header("sidecar-commit"), None);
    assert_eq!(request.header("content-type"), Some("application/json"));
    assert_eq!(request.json()["files"].as_array().map(Vec::len), Some(2));
    // Nothing new, nothing to ask.
    assert_eq!(sync(&process)["result"], "unchanged");
    assert_eq!(gate.requests().len(), 1);
    manager.put("index.html", "bad");
    let outcome = fails(&process, 502, "gate");
    let error = outcome["error"].as_str().expect("an error").to_owned();
    assert!(error.contains("--gate") && error.ends_with("index.html is bad"), "{error}");
    assert_eq!(volume.current(), first);
    assert!(metric(&process, "file_puller_sync_failures_total{reason=\"gate\"}") >= 1.0);
    // Asked again, and refused again, with nothing new at the source.
    assert_eq!(try_sync(&process).json()["reason"], "gate");
    assert_eq!(gate.requests().len(), 3);
    manager.put("index.html", "good");
    publishes(&process, &volume, &manager);
    // Back to what was published before: that is a change, too.
    manager.put("index.html", "<h1>hello</h1>");
    gate.answer(|_| Answer::new(403, ""));
    assert_eq!(try_sync(&process).json()["reason"], "gate");
    gate.answer(|_| Answer::new(200, ""));
    publishes(&process, &volume, &manager);
    assert_eq!(volume.current(), first);
    assert!(!process.stderr().contains("s3cr3t"), "{}", process.stderr());
}

/// What a refused release has is fetched once, also what it has in several places.
#[test]
fn gate_that_refuses_costs_no_second_fetch() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let gate = Upstream::start(|_| Answer::new(403, ""));
    for path in ["twice/a", "twice/b", "twice/c"] {
        manager.put(path, "the same");
    }
    let url = gate.url("/");
    let process = start(&manager, &volume, &["--gate", &url]);
    let fetched = || manager.asked().iter().filter(|path| !path.ends_with("manifest.json")).count();
    for _ in 0..3 {
        assert_eq!(try_sync(&process).json()["reason"], "gate");
        assert_eq!(fetched(), 3);
    }
    gate.answer(|_| Answer::new(200, ""));
    publishes(&process, &volume, &manager);
    assert_eq!(fetched(), 3);
}

#[test]
fn gate_of_an_archive() {
    let (volume, asked) = (Volume::new(), Asked::default());
    let manager = ContentManager::start(SITE);
    let gate = gate(&asked);
    let archive = tar(&manager.site().files);
    let source = Upstream::start(move |_| Answer::new(200, archive.clone()));
    let (url, check) = (source.url("/site.tar"), gate.url("/"));
    let (code, stderr) = once(&url, &volume.path(), &["--gate", &check]);
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(asked.lock().expect("no holder panics")[0].1, manager.site().files);
    let bad = tar(&ContentManager::start(&[("index.html", "bad")]).site().files);
    source.answer(move |_| Answer::new(200, bad.clone()));
    let (code, stderr) = once(&url, &volume.path(), &["--gate", &check, "--log-level", "error"]);
    assert_eq!((code, stderr.lines().count()), (78, 1), "{stderr}");
    assert_eq!(volume.tree(), manager.site().files);
    assert_eq!(volume.staging(), [] as [&str; 0], "the gate is asked once");
}

/// An archive and an image come whole or not at all, so what was refused stays where it is until it passes, or there is something
/// newer.
#[test]
fn gate_that_refuses_costs_no_second_fetch_of_an_archive() {
    let (site, volume, asked) = (ContentManager::start(SITE), Volume::new(), Asked::default());
    let gate = gate(&asked);
    let source = Upstream::start(|_| Answer::new(503, ""));
    let offer = |version: &str| {
        let (archive, tag) = (tar(&site.site().files), format!("\"{version}\""));
        source.answer(move |request| {
            let same = request.header("if-none-match") == Some(&tag);
            let answer = if same { Answer::new(304, "") } else { Answer::new(200, archive.clone()) };
            answer.with("ETag", &tag)
        });
    };
    let fetched = || {
        let requests = source.requests();
        requests.iter().filter(|request| request.header("if-none-match").is_none()).count()
    };
    let (check, flags) = (gate.url("/"), ["--verify-period", "20ms"]);
    offer("1");
    let process =
        start_when_asked(&source.url("/site.tar"), &volume, &[&["--gate", &check], &flags[..]].concat());
    assert_eq!(sync(&process)["result"], "unchanged", "the first sync had published");
    let first = volume.current();
    // Refused, and asked again with the same tree, verifications in between.
    site.put("index.html", "bad");
    offer("2");
    source.forget();
    for question in 2..=4 {
        fails(&process, 502, "gate");
        assert_eq!(gate.requests().len(), question);
        assert_eq!(asked.lock().expect("no holder panics").last().expect("asked").1, site.site().files);
        let verified = || process.stderr().matches("the published release is sound").count();
        let before = verified();
        wait_until("it is verified", || verified() > before);
    }
    assert_eq!(source.requests().len(), 3);
    assert_eq!((fetched(), volume.current()), (0, first.clone()), "only what had changed was sent");
    gate.answer(|_| Answer::new(204, ""));
    assert_eq!(sync(&process)["result"], "published");
    assert_eq!((volume.tree(), source.requests().len()), (site.site().files.clone(), 4));
    wait_until("staging is swept", || volume.staging().is_empty());
    assert_eq!(sync(&process)["result"], "unchanged");
    // What is newer takes its place, also where that is what the volume has.
    gate.answer(|_| Answer::new(403, ""));
    site.put("index.html", "held back");
    offer("3");
    fails(&process, 502, "gate");
    site.put("index.html", "<h1>hello</h1>");
    offer("1");
    fails(&process, 502, "gate");
    source.forget();
    fails(&process, 502, "gate");
    gate.answer(|_| Answer::new(204, ""));
    assert_eq!(sync(&process)["result"], "published");
    assert_eq!((volume.current(), volume.tree()), (first, site.site().files.clone()));
    assert!(source.requests().iter().all(|request| request.header("if-none-match") == Some("\"1\"")));
    wait_until("staging is swept", || volume.staging().is_empty());
}

/// Also where the answer says that it is compressed on the way, and only its content shows that it is an archive.
#[test]
fn gate_that_refuses_costs_no_second_fetch_of_an_archive_that_is_encoded() {
    let (site, volume) = (ContentManager::start(SITE), Volume::new());
    let gate = Upstream::start(|_| Answer::new(403, ""));
    let archive = gzip(&tar(&site.site().files));
    let source = Upstream::start(move |request| {
        let same = request.header("if-none-match") == Some("\"1\"");
        let answer = if same { Answer::new(304, "") } else { Answer::new(200, archive.clone()) };
        answer.with("ETag", "\"1\"").with("Content-Encoding", "gzip")
    });
    let process = start_when_asked(&source.url("/content"), &volume, &["--gate", &gate.url("/")]);
    fails(&process, 502, "gate");
    source.forget();
    for _ in 0..3 {
        fails(&process, 502, "gate");
    }
    gate.answer(|_| Answer::new(204, ""));
    assert_eq!(sync(&process)["result"], "published");
    assert_eq!(volume.tree(), site.site().files);
    assert!(source.requests().iter().all(|request| request.header("if-none-match") == Some("\"1\"")));
}

/// Another process may sweep what is held back, and an operator may delete it: then it is fetched again.
#[test]
fn gate_is_not_asked_again_about_what_is_gone() {
    let (site, volume, asked) = (ContentManager::start(SITE), Volume::new(), Asked::default());
    site.put("index.html", "bad");
    let (gate, archive) = (gate(&asked), tar(&site.site().files));
    let source = Upstream::start(move |request| {
        let same = request.header("if-none-match").is_some();
        let answer = if same { Answer::new(304, "") } else { Answer::new(200, archive.clone()) };
        answer.with("ETag", "\"1\"")
    });
    let process = start_when_asked(&source.url("/site.tar"), &volume, &["--gate", &gate.url("/")]);
    fails(&process, 502, "gate");
    let release = gate.requests()[0].header("sidecar-release").expect("it is said").to_owned();
    for what in [format!("{release}/index.html"), format!("{release}.json"), String::new()] {
        let path = volume.staged(&release).parent().expect("a directory").join(&what);
        if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) }.expect(&what);
        source.forget();
        fails(&process, 502, "gate");
        let requests = source.requests();
        let whole = requests.iter().filter(|request| request.header("if-none-match").is_none());
        assert_eq!(whole.count(), 1, "{what}");
        assert_eq!(asked.lock().expect("no holder panics").last().expect("asked").1, site.site().files);
    }
    gate.answer(|_| Answer::new(204, ""));
    assert_eq!(sync(&process)["result"], "published");
    assert_eq!((volume.tree(), volume.staging()), (site.site().files.clone(), Vec::new()));
}

/// A refusal is asked again at each period, not less and less often: the answer may depend on anything.
#[test]
fn gate_that_refuses_is_asked_at_each_period() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let gate = Upstream::start(|_| Answer::new(503, ""));
    let url = gate.url("/");
    // With a back-off, the fifth question would come after half a minute.
    let flags = ["--gate", &url, "--period", "20ms", "--max-backoff", "1h"];
    let process = start_with_period(&manager, &volume, &flags);
    wait_until("it is asked again and again", || gate.requests().len() >= 12);
    assert_eq!(volume.current(), None);
    gate.answer(|_| Answer::new(200, ""));
    wait_until("it passes", || volume.current().is_some());
    drop(process);
    // A connection that is asked on again and again would never notice that the gate's name leads elsewhere.
    assert_eq!(gate.connections(), gate.requests().len());
}

#[test]
fn gate_that_says_nothing() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let gate = Upstream::start(|_| Answer::raw(|stream| drop(std::io::Read::read(stream, &mut [0]))));
    let url = gate.url("/");
    let process = start(&manager, &volume, &["--gate", &url, "--gate-timeout", "200ms"]);
    let answer = try_sync(&process).json();
    assert_eq!(answer["reason"], "gate");
    assert!(answer["error"].as_str().is_some_and(|error| error.contains("--gate-timeout 200ms")), "{answer}");
    drop(gate);
    // A process that another test starts has the listener, too, until it runs its program.
    wait_until("the gate's port is closed", || {
        let answer = try_sync(&process).json();
        answer["error"].as_str().is_some_and(|error| error.contains("cannot be asked"))
    });
    assert_eq!(volume.current(), None);
    drop(process);
    let (code, stderr) = once(&manager.url(), &volume.path(), &["--gate", &url]);
    assert!(code == 69 && stderr.contains("cannot be asked"), "{code}: {stderr}");
    let (code, stderr) = once(&manager.url(), &volume.path(), &["--gate", "not-a-url"]);
    assert_eq!((code, stderr.lines().count()), (64, 1), "{stderr}");
}
