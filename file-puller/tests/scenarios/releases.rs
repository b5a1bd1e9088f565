//! What becomes of content: each change at the content manager, and what the volume shows of it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;

use rustix::fs::{Mode, OFlags};
use testkit::{Answer, wait_until};

use crate::content::ContentManager;
use crate::puller::{Volume, metric, publishes, ready, readyz, start, start_in_step, sync};

const SITE: &[(&str, &str)] =
    &[("index.html", "<h1>hello</h1>"), ("css/site.css", "a{}"), ("img/pod.svg", "<svg/>")];

#[test]
fn first_sync() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let (go, gate) = mpsc::channel::<()>();
    let gate = std::sync::Mutex::new(gate);
    manager.fault(move |request, site| {
        if request.target() == "/site/img/pod.svg" {
            // All the rest is staged by now, or will be; nothing of it may show.
            let _released = gate.lock().expect("no holder panics").recv();
        }
        Some(site.answer(request))
    });
    let process = start(&manager, &volume, &[]);
    wait_until("the last file is asked for", || manager.asked().contains(&"/site/img/pod.svg".to_owned()));
    let answer = readyz(&process);
    assert_eq!((answer.status(), answer.text()), (503, "no release published yet\n"));
    assert!(!volume.join("current").exists());
    go.send(()).expect("the upstream waits");
    ready(&process);
    assert_eq!(volume.tree(), manager.site().files);
    assert_eq!(volume.staging(), [] as [&str; 0]);
    // The identity that the contract defines, worked out here in its own way.
    let mut lines: Vec<_> = SITE
        .iter()
        .map(|(path, text)| format!("{} 0644 {path}\n", crate::content::sha256(text.as_bytes())))
        .collect();
    lines.sort();
    let id = crate::content::sha256(lines.concat().as_bytes())[..16].to_owned();
    assert_eq!(volume.current(), Some(id.clone()));
    let manifest =
        fs::read_to_string(volume.join("releases").join(id + ".json")).expect("the manifest is there");
    assert!(manifest.contains("sidecar-manifest/1") && manifest.contains("css/site.css"), "{manifest}");
}

#[test]
fn noop_is_one_request() {
    // A large release has a copy, which is made once, after the sync that published. From then on nothing is written.
    for (spare_from, staging) in [("4", [].as_slice()), ("3", &["seed"])] {
        let (manager, volume) = (ContentManager::start(SITE), Volume::new());
        let process = start_in_step(&manager, &volume, &["--spare-from", spare_from]);
        assert_eq!(volume.staging(), staging);
        let before = volume.snapshot();
        for _ in 0..3 {
            manager.upstream.forget();
            assert_eq!(sync(&process)["result"], "unchanged");
            let requests = manager.upstream.requests();
            assert_eq!(requests.len(), 1);
            assert!(requests[0].header("if-none-match").is_some());
            assert_eq!(requests[0].header("accept-encoding"), Some("identity"));
        }
        assert_eq!(volume.snapshot(), before);
    }
}

#[test]
fn same_content_new_manifest() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let process = start_in_step(&manager, &volume, &[]);
    let published = || {
        let mut seen = volume.snapshot();
        // What the next start asks with is another.
        seen.retain(|path, _| path.starts_with(volume.join("releases")) || *path == volume.join("current"));
        seen
    };
    let before = published();
    manager.touch();
    assert_eq!(sync(&process)["result"], "unchanged");
    assert_eq!(manager.asked(), ["/site/manifest.json"]);
    assert_eq!(published(), before);
}

#[test]
fn one_file_changed() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let process = start_in_step(&manager, &volume, &[]);
    let inodes = (volume.inode("css/site.css"), volume.inode("img/pod.svg"), volume.inode("index.html"));
    manager.put("index.html", "<h1>changed</h1>");
    let outcome = publishes(&process, &volume, &manager);
    assert_eq!(manager.asked(), ["/site/manifest.json", "/site/index.html"]);
    assert_eq!((&outcome["files"], &outcome["fetched_files"]), (&3.into(), &1.into()));
    assert_eq!((volume.inode("css/site.css"), volume.inode("img/pod.svg")), (inodes.0, inodes.1));
    assert_ne!(volume.inode("index.html"), inodes.2);
}

#[test]
fn file_removed() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let process = start_in_step(&manager, &volume, &[]);
    manager.remove("css/site.css");
    publishes(&process, &volume, &manager);
    assert!(!volume.join("current/css").exists(), "no empty directory is left");
}

#[test]
fn file_renamed() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let process = start_in_step(&manager, &volume, &[]);
    let inode = volume.inode("css/site.css");
    let file = manager.site().files.remove("css/site.css").expect("it was there");
    manager.site().files.insert("style/main.css".to_owned(), file);
    publishes(&process, &volume, &manager);
    assert_eq!(volume.inode("style/main.css"), inode);
    assert_eq!(manager.asked(), ["/site/manifest.json"]);
}

#[test]
fn file_becomes_directory() {
    let (manager, volume) = (ContentManager::start(&[("a", "file"), ("b/c", "under")]), Volume::new());
    let process = start_in_step(&manager, &volume, &[]);
    manager.remove("a");
    manager.remove("b/c");
    manager.put("a/file", "now a directory");
    manager.put("b", "now a file");
    publishes(&process, &volume, &manager);
}

#[test]
fn mode_changed() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let process = start_in_step(&manager, &volume, &[]);
    let (first, inode) =
        (volume.join("releases").join(volume.current().expect("published")), volume.inode("index.html"));
    manager.site().files.get_mut("index.html").expect("it is there").0 = 0o555;
    publishes(&process, &volume, &manager);
    // A link would have changed the mode in the earlier release as well.
    assert_ne!(volume.inode("index.html"), inode);
    assert_eq!(crate::puller::tree(&first)["index.html"].0, 0o644);
}

#[test]
fn empty_file() {
    let (manager, volume) = (ContentManager::start(&[("empty", ""), ("other/empty", "")]), Volume::new());
    start_in_step(&manager, &volume, &[]);
}

#[test]
fn deep_tree() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    manager.put(&["d"; 64].join("/"), "deep");
    manager.put(&format!("{}/{}/x", "l".repeat(255), "m".repeat(255)), "long names");
    manager.put("large", vec![7; 3_000_000]);
    start_in_step(&manager, &volume, &[]);
}

#[test]
fn unicode_and_space_names() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    for path in
        ["ü ber/日本 語.html", "a%2e%2e/100%", "q?x=1#y", "..dots..", "+&=;,@:'\"<>|*", "~tilde", "[::1]"]
    {
        manager.put(path, path);
    }
    start_in_step(&manager, &volume, &[]);
}

#[test]
fn forward_and_back() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let process = start_in_step(&manager, &volume, &[]);
    let (first, inode) = (volume.current(), volume.inode("index.html"));
    manager.put("index.html", "other");
    publishes(&process, &volume, &manager);
    assert_ne!(volume.current(), first);
    manager.put("index.html", "<h1>hello</h1>");
    manager.upstream.forget();
    publishes(&process, &volume, &manager);
    assert_eq!((volume.current(), volume.inode("index.html")), (first, inode));
    assert_eq!(manager.asked(), ["/site/manifest.json"]);
}

#[test]
fn a_damaged_earlier_release_is_put_together_again() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let process = start_in_step(&manager, &volume, &[]);
    let first = volume.current().expect("published");
    manager.put("index.html", "other");
    publishes(&process, &volume, &manager);
    fs::remove_file(volume.join("releases").join(&first).join("css/site.css")).expect("it was there");
    fs::write(volume.join("releases").join(&first).join("img/pod.svg"), "another length")
        .expect("it can be written");
    manager.put("index.html", "<h1>hello</h1>");
    publishes(&process, &volume, &manager);
    assert_eq!(volume.current(), Some(first));
    assert_eq!(volume.staging(), [] as [&str; 0]);
}

/// Readers of both kinds, all the time: those that open each file by its path through `current`, and those that hold a
/// directory handle. Every file of release N says N.
#[test]
fn fifty_releases_under_readers() {
    const FILES: usize = 5;
    let (manager, volume) = (ContentManager::start(&[]), Volume::new());
    let put = |release: usize| {
        for file in 0..FILES {
            manager.put(&format!("d{file}/f"), format!("{release} {}", "x".repeat(file * 50_000)));
        }
    };
    put(0);
    let process = start_in_step(&manager, &volume, &["--keep", "1"]);
    let (stop, reads) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|threads| {
        threads.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for file in 0..FILES {
                    let text =
                        fs::read_to_string(volume.join(&format!("current/d{file}/f"))).expect("always there");
                    let (release, rest) = text.split_once(' ').expect("whole");
                    assert!(release.parse::<usize>().is_ok() && rest.len() == file * 50_000, "whole");
                }
                reads.fetch_add(1, Ordering::Relaxed);
            }
        });
        threads.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY;
                let handle =
                    rustix::fs::open(volume.join("current"), flags, Mode::empty()).expect("always there");
                let seen: BTreeSet<String> = (0..FILES).map(|file| release_of(&handle, file)).collect();
                assert_eq!(seen.len(), 1, "releases mixed: {seen:?}");
                reads.fetch_add(1, Ordering::Relaxed);
            }
        });
        for release in 1..=50 {
            put(release);
            publishes(&process, &volume, &manager);
            let before = reads.load(Ordering::Relaxed);
            wait_until("it was read", || reads.load(Ordering::Relaxed) > before);
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(volume.releases().len(), 51, "none was old enough to be removed");
}

fn release_of(handle: &OwnedFd, file: usize) -> String {
    let opened = rustix::fs::openat(handle, format!("d{file}/f"), OFlags::RDONLY, Mode::empty());
    let mut text = String::new();
    File::from(opened.expect("always there")).read_to_string(&mut text).expect("it can be read");
    text.split_once(' ').expect("whole").0.to_owned()
}

#[test]
fn ten_thousand_files() {
    let (manager, volume) = (ContentManager::start(&[]), Volume::new());
    for file in 0..10_000 {
        manager
            .put(&format!("directory-{:03}/file-{file:05}.html", file / 100), format!("content of {file}"));
    }
    // The manifest once for all requests: making it ten thousand times would be a test of this test.
    let site = manager.site().clone();
    let manifest = site.manifest();
    manager.upstream.answer(move |request| match request.target() {
        "/site/manifest.json" => Answer::new(200, manifest.clone()).with("ETag", "\"m\""),
        _ => site.answer(request),
    });
    let process = start(&manager, &volume, &[]);
    // On a loaded machine all of it can take longer than the deadline of one step, so each thousand files are a step.
    for thousands in 1..=10 {
        wait_until("the next thousand files", || {
            metric(&process, "file_puller_fetched_files_total") >= f64::from(thousands) * 1000.0
        });
    }
    ready(&process);
    assert_eq!(sync(&process)["result"], "unchanged");
    assert_eq!(volume.tree(), manager.site().files);
    let peak = peak_resident_bytes(&process);
    assert!(peak < 40 << 20, "{peak} bytes at the peak");
    let progress = process.events().into_iter().find(|event| event["message"] == "staging");
    assert_eq!(progress.expect("a sync says what it is about to do")["to_fetch"], 10_000);
}

fn peak_resident_bytes(process: &testkit::Process) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id())).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("a process has a peak");
    let kib: u64 = line.split_whitespace().nth(1).expect("a number").parse().expect("a number");
    kib * 1024
}

#[test]
fn an_earlier_runs_release_is_ready_at_once() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    start_in_step(&manager, &volume, &[]).kill();
    manager.fault(|_, _| Some(Answer::new(503, "").with("Retry-After", "3600")));
    let process = start(&manager, &volume, &[]);
    assert_eq!(readyz(&process).status(), 200);
    let release = volume.current().expect("published");
    assert!(metric(&process, &format!("file_puller_release_info{{release=\"{release}\"}}")) > 0.0);
    let before = volume.snapshot();
    manager.recover();
    assert_eq!(sync(&process)["result"], "unchanged");
    assert_eq!(volume.snapshot(), before);
}
