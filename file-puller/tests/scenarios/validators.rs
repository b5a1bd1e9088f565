//! How a source is asked whether it has something new, with what it said of its content the last time.

use std::fs;
use std::thread;

use testkit::http::Message;
use testkit::{Answer, Process, wait_until};

use crate::content::{ContentManager, Site};
use crate::puller::{Volume, once, publishes, start, start_in_step, start_when_asked, sync};

const SITE: &[(&str, &str)] = &[("index.html", "<h1>hello</h1>")];
const MODIFIED: &str = "Mon, 23 Nov 2026 18:00:00 GMT";
const SECOND_LATER: &str = "Mon, 23 Nov 2026 18:00:01 GMT";
const MINUTE_LATER: &str = "Mon, 23 Nov 2026 18:01:00 GMT";

fn is_manifest(request: &Message) -> bool {
    request.target().split('?').next().is_some_and(|path| path.ends_with("manifest.json"))
}

/// A manifest with these headers and no others; 304 where one of the two conditions holds.
fn manifest(request: &Message, site: &Site, headers: &[(&str, &str)]) -> Option<Answer> {
    if !is_manifest(request) {
        return None;
    }
    let value = |name: &str| headers.iter().find(|(header, _)| *header == name).map(|(_, value)| *value);
    let asked = |name: &str| request.header(name);
    let is_known = match (asked("if-none-match"), asked("if-modified-since")) {
        (Some(tag), _) => Some(tag) == value("ETag"),
        // As many servers do: not newer than.
        (None, Some(date)) => Some(date) >= value("Last-Modified"),
        (None, None) => false,
    };
    let answer = if is_known { Answer::new(304, "") } else { Answer::new(200, site.manifest()) };
    Some(headers.iter().fold(answer, |answer, (name, value)| answer.with(name, value)))
}

/// The conditions that the manifest was asked for with, in order.
fn conditions(manager: &ContentManager) -> Vec<Option<String>> {
    let condition = |request: &Message| {
        let names = ["if-none-match", "if-modified-since"];
        names.into_iter().find_map(|name| request.header(name)).map(str::to_owned)
    };
    manager.upstream.requests().iter().filter(|request| is_manifest(request)).map(condition).collect()
}

fn warnings(process: &Process, about: &str) -> usize {
    let is_one = |line: &&str| line.contains("\"WARN\"") && line.contains(about);
    process.stderr().lines().filter(is_one).count()
}

#[test]
fn without_a_tag_the_date_is_asked_with() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    manager.fault(|request, site| {
        manifest(request, site, &[("Last-Modified", MODIFIED), ("Date", MINUTE_LATER)])
    });
    let process = start(&manager, &volume, &[]);
    for _ in 0..3 {
        assert_eq!(sync(&process)["result"], "unchanged");
    }
    let asked = conditions(&manager);
    assert_eq!(asked[0], None);
    assert!(asked[1..].iter().all(|date| date.as_deref() == Some(MODIFIED)), "{asked:?}");
    assert_eq!(warnings(&process, "ETag"), 0, "{}", process.stderr());
}

/// A file that is put back has its older date. A server that compares "not newer than" then says that nothing has changed.
#[test]
fn a_date_is_not_trusted_beyond_the_verification() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let flags = ["--verify-period", "1s"];
    let headers = |date| {
        move |request: &Message, site: &Site| {
            manifest(request, site, &[("Last-Modified", date), ("Date", MINUTE_LATER)])
        }
    };
    manager.fault(headers(MODIFIED));
    let process = start(&manager, &volume, &flags);
    assert_eq!(sync(&process)["result"], "unchanged");
    manager.put("index.html", "restored");
    manager.fault(headers("Mon, 16 Nov 2026 18:00:00 GMT"));
    wait_until("it is seen", || {
        sync(&process);
        volume.tree() == manager.site().files
    });
    assert!(conditions(&manager).contains(&Some(MODIFIED.to_owned())), "asked with the date before");
}

#[test]
fn a_source_with_neither_is_told_of_once() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    manager.fault(|request, site| manifest(request, site, &[]));
    let process = start(&manager, &volume, &[]);
    for _ in 0..3 {
        assert_eq!(sync(&process)["result"], "unchanged");
    }
    wait_until("it is said", || warnings(&process, "ETag") > 0);
    assert_eq!(warnings(&process, "ETag"), 1, "{}", process.stderr());
    assert!(conditions(&manager).iter().all(Option::is_none));
    manager.put("index.html", "new");
    publishes(&process, &volume, &manager);
}

/// nginx makes its tag of the second and the size. A change within that second keeps both.
#[test]
fn nginx_racy_etag() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let headers = |date| {
        move |request: &Message, site: &Site| {
            manifest(request, site, &[("ETag", "\"6744-3e8\""), ("Last-Modified", MODIFIED), ("Date", date)])
        }
    };
    manager.fault(headers(SECOND_LATER));
    let process = start(&manager, &volume, &[]);
    assert_eq!(sync(&process)["result"], "unchanged");
    // Of the same size, within the same second.
    manager.put("index.html", "<h1>howdy</h1>");
    manager.fault(headers(MINUTE_LATER));
    publishes(&process, &volume, &manager);
    // From now on the tag can be believed.
    assert_eq!(sync(&process)["result"], "unchanged");
    let asked = conditions(&manager);
    assert_eq!(asked.last(), Some(&Some("\"6744-3e8\"".to_owned())), "{asked:?}");
    assert!(asked[..asked.len() - 1].iter().all(Option::is_none), "{asked:?}");
}

/// Each start of a puller with `--once` has only what the volume remembers to ask with.
#[test]
fn a_start_after_the_first_asks_with_a_validator_that_can_be_trusted() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let pull = |tag: &'static str, date: &'static str| {
        manager.upstream.forget();
        manager.fault(move |request, site| {
            manifest(request, site, &[("ETag", tag), ("Last-Modified", MODIFIED), ("Date", date)])
        });
        let (code, stderr) = once(&manager.url(), &volume.path(), &[]);
        assert_eq!(code, 0, "{stderr}");
        conditions(&manager)
    };
    let [first, second] = ["\"6744-3e8\"", "\"6745-3e8\""];
    // Fetched within the second in which it was made: its tag cannot be trusted, and that of the next answer can.
    assert_eq!(pull(first, SECOND_LATER), [None]);
    assert_eq!(pull(first, MINUTE_LATER), [None]);
    assert_eq!(pull(first, MINUTE_LATER), [Some(first.to_owned())]);
    // The same content has another tag once it is made again.
    assert_eq!(pull(second, MINUTE_LATER), [Some(first.to_owned())]);
    let before = volume.snapshot();
    assert_eq!(pull(second, MINUTE_LATER), [Some(second.to_owned())]);
    assert_eq!(volume.snapshot(), before, "nothing changed, so nothing is written");
}

#[test]
fn the_validator_survives_a_restart() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    drop(start_in_step(&manager, &volume, &[]));
    let before = volume.snapshot();
    let process = start(&manager, &volume, &[]);
    assert_eq!(sync(&process)["result"], "unchanged");
    let asked = conditions(&manager);
    assert!(asked.iter().all(Option::is_some), "{asked:?}");
    assert_eq!(volume.snapshot(), before, "nothing changed, so nothing is written");
    drop(process);
    manager.upstream.forget();
    // Asked for in another way, the same bytes may mean another release.
    let process = start_when_asked(&(manager.url() + "?other"), &volume, &[]);
    assert_eq!(sync(&process)["result"], "unchanged");
    assert_eq!(conditions(&manager)[0], None);
}

/// "Not modified" speaks of what the source has. What is on the volume is another matter.
#[test]
fn a_validator_is_of_a_release_that_is_there() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    drop(start_in_step(&manager, &volume, &[]));
    fs::remove_file(volume.join("current/index.html")).expect("it was there");
    let process = start(&manager, &volume, &[]);
    assert_eq!(sync(&process)["result"], "unchanged", "the first sync had repaired it");
    assert_eq!(volume.tree(), manager.site().files);
    drop(process);
    // Whatever becomes of what is remembered, it is never an error.
    for content in ["", "{", "{\"validator\":1}", "[]"] {
        fs::write(volume.join(".source.json"), content).expect("a file");
        manager.upstream.forget();
        let process = start(&manager, &volume, &[]);
        assert_eq!(sync(&process)["result"], "unchanged");
        assert_eq!(conditions(&manager)[0], None);
    }
}

/// A connection that lives for as long as it is used never notices that its name leads elsewhere by now.
#[test]
fn no_connection_lives_for_ever() {
    for (flags, lives) in [(&[][..], true), (&["--max-connection-age", "1ms"][..], false)] {
        let (manager, volume) = (ContentManager::start(SITE), Volume::new());
        let process = start_when_asked(&manager.url(), &volume, &[&["--concurrency", "1"], flags].concat());
        sync(&process);
        let before = manager.upstream.connections();
        for _ in 0..5 {
            thread::sleep(std::time::Duration::from_millis(2));
            sync(&process);
        }
        let after = manager.upstream.connections();
        assert_eq!(after == before, lives, "{before}, {after}");
    }
}
