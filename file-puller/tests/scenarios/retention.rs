//! What becomes of old releases: they stay for those who read them, and then they go.

use std::path::PathBuf;
use std::process::Command;

use testkit::{Answer, Process, Upstream, wait_until};

use crate::content::ContentManager;
use crate::puller::{
    BINARY, Volume, fails, names, once, publishes, start_in_step, sync, tree, try_sync, when_asked,
};
use crate::tarball::{gzip, tar};

const SITE: &[(&str, &str)] = &[("index.html", "<h1>hello</h1>"), ("css/site.css", "a{}")];

#[test]
fn retention() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let process = start_in_step(&manager, &volume, &["--keep", "2", "--keep-for", "0s"]);
    let mut published = vec![volume.current().expect("published")];
    for release in 1..=5 {
        manager.put("index.html", release.to_string());
        publishes(&process, &volume, &manager);
        published.push(volume.current().expect("published"));
        let mut newest: Vec<_> = published.iter().rev().take(3).cloned().collect();
        newest.sort();
        // It comes after the answer: nobody who asked for a sync waits for it.
        wait_until("what was beyond the bound is gone", || {
            names(&volume.join("releases")).len() == 2 * newest.len() && volume.staging().is_empty()
        });
        assert_eq!(volume.releases(), newest);
    }
}

#[test]
fn retention_gives_readers_their_time() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let process = start_in_step(&manager, &volume, &["--keep", "0", "--keep-for", "1h"]);
    for release in 1..=4 {
        manager.put("index.html", release.to_string());
        publishes(&process, &volume, &manager);
    }
    assert_eq!(volume.releases().len(), 5);
}

#[test]
fn retention_comes_back_to_its_bound_without_a_new_release() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let process = start_in_step(&manager, &volume, &["--keep", "1", "--keep-for", "200ms"]);
    for release in 1..=4 {
        manager.put("index.html", release.to_string());
        publishes(&process, &volume, &manager);
    }
    wait_until("the bound is reached", || {
        assert_eq!(sync(&process)["result"], "unchanged");
        names(&volume.join("releases")).len() == 4
    });
    assert_eq!(volume.tree(), manager.site().files);
}

#[test]
fn retention_works_for_once_and_survives_a_restart() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let pull = |flags: &[&str]| {
        let (code, stderr) = once(&manager.url(), &volume.path(), flags);
        assert_eq!(code, 0, "{stderr}");
    };
    for release in 1..=4 {
        manager.put("index.html", release.to_string());
        pull(&["--keep", "1", "--keep-for", "0s"]);
        assert_eq!(volume.releases().len(), release.min(2), "release {release}");
    }
    // Each process finds what the one before has replaced, and when.
    manager.put("index.html", "5");
    pull(&["--keep", "0", "--keep-for", "1h"]);
    assert_eq!(volume.releases().len(), 3);
    pull(&["--keep", "0", "--keep-for", "1h"]);
    assert_eq!(volume.releases().len(), 3, "too young");
    pull(&["--keep", "0", "--keep-for", "1ms"]);
    assert_eq!(volume.releases(), [volume.current().expect("published")]);
}

#[test]
fn an_old_release_goes_early_when_space_is_short() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let limited = ["--keep", "9", "--keep-for", "0s", "--max-volume-size", "3500KiB", "--log-level", "error"];
    for release in 1..=5_u8 {
        manager.put("large", vec![release; 1 << 20]);
        let (code, stderr) = once(&manager.url(), &volume.path(), &limited);
        assert_eq!(code, 0, "{stderr}");
        assert_eq!(volume.tree(), manager.site().files);
        assert_eq!(volume.releases().len(), usize::from(release).min(3), "release {release}");
    }
    // Readers of old releases keep their time, and the message says what holds the space.
    manager.put("large", vec![6; 1 << 20]);
    let limited = [&limited[..3], &["1h"], &limited[4..]].concat();
    let (code, stderr) = once(&manager.url(), &volume.path(), &limited);
    assert_eq!((code, stderr.lines().count()), (74, 1), "{stderr}");
    for said in ["--max-volume-size", "2 old releases hold", "--keep-for"] {
        assert!(stderr.contains(said), "{said} is missing in {stderr}");
    }
}

/// What an archive holds is on the volume before its release is put together, and takes space there all the same.
#[test]
fn an_old_release_goes_early_for_an_archive_too() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let source = Upstream::start(|_| Answer::new(503, ""));
    let pull = |version: u8, flags: &[&str]| {
        manager.put("large", vec![version; 1 << 20]);
        // Put back to what only the release has that goes for this one.
        manager.put("put back", format!("{}", version % 3));
        let archive = tar(&manager.site().files);
        source.answer(move |_| Answer::new(200, archive.clone()));
        once(
            &source.url("/site.tar"),
            &volume.path(),
            &[&["--keep", "9", "--log-level", "error"], flags].concat(),
        )
    };
    for version in 1..=5 {
        let (code, stderr) = pull(version, &["--keep-for", "0s", "--max-volume-size", "3500KiB"]);
        assert_eq!(code, 0, "{stderr}");
        assert_eq!(volume.tree(), manager.site().files);
        assert_eq!(volume.releases().len(), usize::from(version).min(3), "release {version}");
    }
    // Before any of it is fetched.
    let (code, stderr) = pull(6, &["--keep-for", "1h", "--min-free", "1EiB"]);
    assert_eq!((code, stderr.lines().count()), (74, 1), "{stderr}");
    assert!(stderr.contains("--min-free") && stderr.contains("2 old releases hold"), "{stderr}");
    let (code, stderr) = pull(6, &["--keep-for", "0s", "--min-free", "1EiB"]);
    assert_eq!(code, 74, "{stderr}");
    assert!(stderr.contains("there is no old release that could go"), "{stderr}");
    assert_eq!(volume.releases(), [volume.current().expect("published")]);
}

/// A puller whose volume is a disk of 4 MiB, in a mount namespace of the test's own, and where the test sees that volume.
fn start_on_small_disk(url: &str, volume: &Volume, keep_for: &str) -> (Process, PathBuf) {
    let script = "mount -t tmpfs -o size=4m none \"$0\" && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["-m", "--", "sh", "-c", script]).arg(volume.path());
    command.args([BINARY, "--source", url, "--min-free", "0", "--keep", "9", "--keep-for", keep_for]);
    command.arg("--volume").arg(volume.path());
    let process = Process::start_command(when_asked(command));
    let seen = format!("/proc/{}/root{}", process.id(), volume.path().display());
    (process, seen.into())
}

/// How much a compressed archive unpacks to, and without a length how much will come at all, shows when the volume is full.
#[test]
#[ignore = "needs root: file-puller/tests/users/run.sh"]
fn old_releases_go_early_for_what_has_filled_the_volume() {
    for keep_for in ["0s", "1h"] {
        let (manager, volume) = (ContentManager::start(SITE), Volume::new());
        let source = Upstream::start(|_| Answer::new(503, ""));
        let put = |version: u8| {
            manager.put("large", vec![version; 1 << 20]);
            let archive = gzip(&tar(&manager.site().files));
            source.answer(move |_| Answer::new(200, archive.clone()));
        };
        let url = source.url("/site.tar.gz");
        let (process, seen) = start_on_small_disk(&url, &volume, keep_for);
        try_sync(&process);
        for version in 1..=3 {
            put(version);
            assert_eq!(sync(&process)["result"], "published");
        }
        put(4);
        if keep_for == "0s" {
            assert_eq!(sync(&process)["result"], "published");
            assert_eq!(tree(&seen.join("current")), manager.site().files);
            assert_eq!(names(&seen.join("releases")).len(), 2 * 2, "the one before is still read");
            continue;
        }
        let before = tree(&seen.join("current"));
        let error = fails(&process, 500, "volume")["error"].to_string();
        for said in ["No space left on device", "2 old releases hold 2.0 MiB", "--keep-for"] {
            assert!(error.contains(said), "{said} is missing in {error}");
        }
        assert_eq!(tree(&seen.join("current")), before);
        assert_eq!(names(&seen.join("releases")).len(), 2 * 3);
    }
}
