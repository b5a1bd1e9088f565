//! What has arrived is kept, a slow disk is nobody's fault but its own, and nothing after the commit point fails a sync.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use testkit::{Answer, Process, wait_until};

use crate::content::{ContentManager, sha256};
use crate::puller::{
    BINARY, Volume, fails, metric, once, start, sync, tree, try_sync, when_asked, with_umask,
};
use crate::tarball::{gzip, tar};

const SITE: &[(&str, &str)] = &[("index.html", "<h1>hello</h1>"), ("css/site.css", "a{}")];

fn many(files: usize) -> ContentManager {
    let manager = ContentManager::start(&[]);
    for file in 0..files {
        manager.put(&format!("f/{file:03}"), format!("content {file}"));
    }
    manager
}

/// A puller on a volume whose disk is slow, or whose file system lacks something.
fn start_with(manager: &ContentManager, volume: &Volume, fault: (&str, &str), flags: &[&str]) -> Process {
    let mut command = with_umask("022");
    command.args(["--log-level", "debug", "--source", &manager.url(), "--volume"]);
    command.arg(volume.path()).args(flags);
    let mut command = when_asked(command);
    match fault {
        ("FILE_PULLER_WITHOUT", lacking) => command.env("FILE_PULLER_WITHOUT", format!("{lacking},retries")),
        (name, value) => command.env(name, value),
    };
    Process::start_command(command)
}

#[test]
fn what_had_arrived_survives_a_failed_sync() {
    let (manager, volume) = (many(20), Volume::new());
    // The last one, so that all others are there.
    manager.fault(|request, _| request.target().ends_with("/019").then(|| Answer::new(503, "")));
    let (code, stderr) = once(&manager.url(), &volume.path(), &["--concurrency", "1"]);
    assert_eq!(code, 69, "{stderr}");
    assert_eq!(manager.asked().len(), 21);
    manager.upstream.forget();
    manager.recover();
    // Another process: an init container that is started again.
    let (code, stderr) = once(&manager.url(), &volume.path(), &["--concurrency", "1"]);
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(manager.asked(), ["/site/manifest.json", "/site/f/019"]);
    assert_eq!(volume.tree(), manager.site().files);
    assert_eq!(volume.staging(), [] as [&str; 0]);
}

#[test]
fn a_failed_sync_keeps_what_the_next_of_the_same_process_needs() {
    let (manager, volume) = (many(20), Volume::new());
    manager.fault(|request, _| request.target().ends_with("/019").then(|| Answer::new(503, "")));
    let process = start(&manager, &volume, &["--concurrency", "1"]);
    assert_eq!(try_sync(&process).status(), 502);
    manager.upstream.forget();
    manager.recover();
    assert_eq!(sync(&process)["fetched_files"], 1);
    assert_eq!(manager.asked(), ["/site/manifest.json", "/site/f/019"]);
    assert_eq!(volume.tree(), manager.site().files);
    assert_eq!(volume.staging(), [] as [&str; 0]);
}

/// A verification may come during a back-off, or before anything is published.
#[test]
fn a_verification_keeps_what_a_failed_sync_has_fetched() {
    let (manager, volume) = (many(20), Volume::new());
    let fail = || {
        manager.upstream.forget();
        manager.fault(|request, _| request.target().ends_with("/019").then(|| Answer::new(503, "")));
    };
    fail();
    let process = start(&manager, &volume, &["--concurrency", "1", "--verify-period", "50ms"]);
    for published in [false, true] {
        assert_eq!(try_sync(&process).status(), 502);
        let looks = || process.stderr().matches("the published release is sound").count();
        let looked = looks();
        wait_until("it is verified", || looks() > looked + 1);
        manager.upstream.forget();
        manager.recover();
        assert_eq!(sync(&process)["fetched_files"], 1, "published before: {published}");
        assert_eq!(manager.asked(), ["/site/manifest.json", "/site/f/019"]);
        assert_eq!(volume.tree(), manager.site().files);
        wait_until("nothing is left", || volume.staging().is_empty());
        for file in 0..20 {
            manager.put(&format!("f/{file:03}"), format!("new content {file}"));
        }
        fail();
    }
}

/// A crash, a power failure or an operator can leave anything under an object's name.
#[test]
fn an_object_is_hashed_before_it_is_used() {
    let (manager, volume) = (many(5), Volume::new());
    manager.fault(|request, _| request.target().ends_with("/004").then(|| Answer::new(503, "")));
    assert_eq!(once(&manager.url(), &volume.path(), &["--concurrency", "1"]).0, 69);
    let objects = volume.staged("objects");
    let object = |content: &str| objects.join(format!("{}-0644", sha256(content.as_bytes())));
    fs::write(object("content 1"), "content x").expect("it is there");
    fs::write(object("content 2"), "short").expect("it is there");
    manager.upstream.forget();
    manager.recover();
    let (code, stderr) = once(&manager.url(), &volume.path(), &["--concurrency", "1"]);
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(manager.asked(), ["/site/manifest.json", "/site/f/001", "/site/f/002", "/site/f/004"]);
    assert_eq!(volume.tree(), manager.site().files);
}

#[test]
fn identical_files_are_fetched_once() {
    let (manager, volume) = (ContentManager::start(&[]), Volume::new());
    for path in ["a.bin", "b.bin", "sub/c.bin"] {
        manager.put(path, vec![7; 300_000]);
    }
    // Another mode is another file.
    manager.site().files.insert("program".to_owned(), (0o755, vec![7; 300_000]));
    let (code, stderr) = once(&manager.url(), &volume.path(), &[]);
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(manager.asked().len(), 3, "{:?}", manager.asked());
    assert_eq!(volume.tree(), manager.site().files);
    assert_eq!(volume.inode("a.bin"), volume.inode("b.bin"));
    assert_eq!(volume.inode("a.bin"), volume.inode("sub/c.bin"));
    assert_ne!(volume.inode("a.bin"), volume.inode("program"));
}

/// Forty files of 50 ms each at the disk, and a source that answers at once.
#[test]
fn a_stalled_disk_is_not_blamed_on_the_source() {
    let (manager, volume) = (many(40), Volume::new());
    let flags = ["--read-timeout", "300ms", "--concurrency", "4"];
    let process = start_with(&manager, &volume, ("FILE_PULLER_STALL", "write=50"), &flags);
    assert_eq!(sync(&process)["result"], "unchanged", "the first sync had published");
    assert_eq!(volume.tree(), manager.site().files);
    assert!(metric(&process, "file_puller_retries_total{what=\"file\"}") < 0.5);
    assert_eq!(manager.asked().iter().filter(|path| path.contains("/f/")).count(), 40);
}

/// Forty files of 250 ms each are ten seconds of reading.
#[test]
fn a_sync_does_not_wait_for_a_verification() {
    let (manager, volume) = (many(40), Volume::new());
    let flags = ["--verify-period", "20ms"];
    let process = start_with(&manager, &volume, ("FILE_PULLER_STALL", "read=250"), &flags);
    sync(&process);
    let interrupted = || {
        let events = process.events();
        events
            .iter()
            .filter(|event| event["message"] == "a sync is more urgent than the verification")
            .count()
    };
    let mut longest = Duration::ZERO;
    while interrupted() < 3 {
        let asked = Instant::now();
        assert_eq!(sync(&process)["result"], "unchanged");
        longest = longest.max(asked.elapsed());
    }
    assert!(longest < Duration::from_secs(5), "{longest:?}");
    // And it comes to its end, although it was interrupted.
    wait_until("the verification ends", || {
        process.events().iter().any(|event| event["message"] == "the published release is sound")
    });
}

/// What cannot be measured or synced after `current` is renamed does not make it another release.
#[test]
fn nothing_after_the_commit_point_fails_a_sync() {
    for lacking in ["statvfs", "sync-root"] {
        let (manager, volume) = (ContentManager::start(SITE), Volume::new());
        let process = start_with(&manager, &volume, ("FILE_PULLER_WITHOUT", lacking), &[]);
        sync(&process);
        assert_eq!(volume.tree(), manager.site().files);
        assert!(metric(&process, "file_puller_syncs_total{result=\"failed\"}") < 0.5, "{lacking}");
        assert!(metric(&process, "file_puller_syncs_total{result=\"published\"}") > 0.5, "{lacking}");
        manager.put("index.html", "new");
        assert_eq!(sync(&process)["result"], "published", "{lacking}");
    }
}

/// That a disk cannot be read is not that space is short.
#[test]
fn no_old_release_goes_because_their_sizes_cannot_be_read() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let flags = ["--keep", "9", "--keep-for", "0s", "--max-volume-size", "1GiB"];
    for release in 1..=2 {
        manager.put("index.html", release.to_string());
        sync(&start_with(&manager, &volume, ("FILE_PULLER_WITHOUT", "nothing"), &flags));
    }
    let before = volume.releases();
    manager.put("index.html", "3");
    let process = start_with(&manager, &volume, ("FILE_PULLER_WITHOUT", "tree-sizes"), &flags);
    fails(&process, 500, "volume");
    assert_eq!((before.len(), volume.releases()), (2, before));
}

#[test]
fn old_releases_go_early_for_inodes_too() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    for release in 1..=3 {
        manager.put("index.html", release.to_string());
        sync(&start_with(&manager, &volume, ("FILE_PULLER_WITHOUT", "nothing"), &[]));
    }
    manager.put("index.html", "4");
    for (keep_for, left, why) in
        [("1h", 3, "2 old releases hold"), ("0s", 1, "there is no old release that could go")]
    {
        let flags = ["--keep", "9", "--keep-for", keep_for];
        let process = start_with(&manager, &volume, ("FILE_PULLER_WITHOUT", "inodes"), &flags);
        let outcome = fails(&process, 500, "volume");
        let error = outcome["error"].as_str().expect("an error");
        assert!(error.contains("0 inodes free, and") && error.contains(why), "{error}");
        assert_eq!(volume.releases().len(), left, "{keep_for}");
    }
}

/// What a file system can lack, and what the log says of it where something is weaker without.
const LACKING: &[(&str, &str)] = &[
    ("exchange", "no RENAME_EXCHANGE"),
    ("syncfs", "no syncfs"),
    // What cannot be linked is copied, and the other lock is still there.
    ("link", ""),
    ("flock", ""),
    ("fsync-directory", "no fsync of directories"),
    ("modes", "keeps no modes"),
    ("chmod", "keeps no modes"),
    ("exchange,syncfs,link,fsync-directory,modes", "keeps no modes"),
];

/// What NFS, FUSE and overlay file systems do not have. Each is worked around, and nothing is fetched that is there.
#[test]
fn a_file_system_that_lacks_something() {
    for (lacking, said) in LACKING {
        let without = ("FILE_PULLER_WITHOUT", *lacking);
        let (manager, volume) = (many(80), Volume::new());
        manager.put("twice", "content 1");
        let process = start_with(&manager, &volume, without, &["--verify-period", "1h"]);
        sync(&process);
        assert_eq!(volume.tree(), manager.site().files, "{lacking}");
        manager.upstream.forget();
        manager.put("f/000", "changed");
        assert_eq!(sync(&process)["fetched_files"], 1, "{lacking}");
        assert_eq!(volume.tree(), manager.site().files, "{lacking}");
        assert_eq!(manager.asked(), ["/site/manifest.json", "/site/f/000"], "{lacking}");
        // The current release is damaged while the puller is away, and is put together again in its place.
        let mut log = process.stderr();
        drop(process);
        fs::remove_file(volume.join("current/f/001")).expect("it was there");
        let process = start_with(&manager, &volume, without, &["--verify-period", "50ms"]);
        assert_eq!(sync(&process)["result"], "unchanged", "{lacking}");
        assert_eq!(tree(&volume.join("current")), manager.site().files, "{lacking}");
        wait_until("it is verified", || {
            process.events().iter().any(|event| event["message"] == "the published release is sound")
        });
        assert!(metric(&process, "file_puller_repaired_files_total") < 0.5, "{lacking}");
        log.push_str(&process.stderr());
        assert!(log.contains(said), "{lacking}: {log}");
    }
}

#[test]
fn an_archive_on_a_file_system_that_lacks_something() {
    for (lacking, said) in LACKING {
        let (manager, volume) = (many(80), Volume::new());
        // One content under two modes is two files, and under two names it is one.
        manager.put("twice", "content 1");
        manager.site().files.insert("bin/program".to_owned(), (0o755, b"content 1".to_vec()));
        manager.fault(|_, site| Some(Answer::new(200, gzip(&tar(&site.files)))));
        let mut command = with_umask("022");
        command.args(["--log-level", "debug", "--source", &manager.upstream.url("/site.tar.gz"), "--volume"]);
        command.arg(volume.path()).env("FILE_PULLER_WITHOUT", format!("{lacking},retries"));
        let process = Process::start_command(command);
        sync(&process);
        for content in ["", "changed"] {
            manager.put("f/000", content);
            sync(&process);
            let mut expected = manager.site().files.clone();
            if lacking.contains("chmod") {
                for (mode, _) in expected.values_mut() {
                    *mode = 0o644;
                }
            }
            assert_eq!(volume.tree(), expected, "{lacking}");
        }
        let log = process.stderr();
        // A release that is whole has nothing to change places with.
        assert!(log.contains(said) || *lacking == "exchange", "{lacking}: {log}");
    }
}

/// A new file may have the mode of the volume's lock by the umask alone, and a program never has its own by that.
#[test]
fn modes_that_are_refused_are_noticed_under_any_umask() {
    for umask in ["000", "002", "022", "077"] {
        let (manager, volume) = (ContentManager::start(SITE), Volume::new());
        manager.site().files.insert("bin/program".to_owned(), (0o755, b"#!/bin/sh".to_vec()));
        for asked in [4, 1] {
            let mut command = with_umask(umask);
            command.args(["--once", "--source", &manager.url(), "--volume"]).arg(volume.path());
            command.env("FILE_PULLER_WITHOUT", "chmod");
            let mut process = Process::start_as_is(command);
            assert!(process.wait().success(), "{umask}: {}", process.stderr());
            assert!(process.stderr().contains("keeps no modes"), "{umask}: {}", process.stderr());
            assert_eq!(manager.asked().len(), asked, "{umask}: {:?}", manager.asked());
            manager.upstream.forget();
        }
    }
}

/// The link `current` is the last step of all, and without it nothing that was fetched would be of any use.
#[test]
fn a_file_system_without_symbolic_links_is_refused_at_the_start() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let run = |flags: &[&str]| {
        let mut command = Command::new(BINARY);
        command.args(["--admin-addr", "127.0.0.1:0", "--source", &manager.url(), "--volume"]);
        command.arg(volume.path()).args(flags).env("FILE_PULLER_WITHOUT", "symlink");
        let mut process = Process::start_as_is(command);
        (process.wait().code(), process.stderr())
    };
    for flags in [&["--once"][..], &["--log-level", "error"]] {
        let (code, stderr) = run(flags);
        assert_eq!((code, stderr.lines().count()), (Some(74), 1), "{stderr}");
        let path = volume.path();
        let said = format!("cannot use {}: its file system has no symbolic links", path.display());
        assert!(stderr.contains(&said) && stderr.contains("another --volume"), "{stderr}");
        assert_eq!(manager.asked(), [] as [&str; 0]);
    }
}
