//! The copy of the current release that the next one begins with: it is never seen, and makes no difference but in time.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use testkit::{Answer, Process, wait_until};

use crate::content::ContentManager;
use crate::puller::{Volume, metric, publishes, start_in_step, sync, tree, try_sync};

const SITE: &[(&str, &str)] =
    &[("index.html", "<h1>hello</h1>"), ("css/site.css", "a{}"), ("img/pod.svg", "<svg/>"), ("img/2/x", "x")];

/// A puller that copies also small releases.
fn sparing(manager: &ContentManager, volume: &Volume, flags: &[&str]) -> Process {
    let flags = [&["--spare-from", "1"][..], flags].concat();
    let process = start_in_step(manager, volume, &flags);
    has_spare(manager, volume);
    process
}

/// Waits until the copy is there, and whole.
#[track_caller]
fn has_spare(manager: &ContentManager, volume: &Volume) {
    let spare = || volume.staged("seed");
    wait_until("the copy is made", || {
        spare().is_dir() && volume.staging() == ["seed"] && spare_is(manager, volume)
    });
}

fn spare_is(manager: &ContentManager, volume: &Volume) -> bool {
    let paths: Vec<_> = manager.site().files.keys().cloned().collect();
    let inode = |root: &Path, path: &str| fs::metadata(root.join(path)).map(|file| file.ino()).ok();
    paths.iter().all(|path| {
        let spare = inode(&volume.staged("seed"), path);
        spare.is_some() && spare == inode(&volume.join("current"), path)
    })
}

/// To sync so many directories one by one would hold up the next sync for longer than the copy saves.
#[test]
fn a_release_of_very_many_directories_has_no_copy() {
    let (manager, volume) = (ContentManager::start(&[]), Volume::new());
    for number in 0..2_001 {
        manager.put(&format!("{number}/f"), "the same");
    }
    let process = start_in_step(&manager, &volume, &["--spare-from", "1"]);
    manager.put("0/f", "changed");
    publishes(&process, &volume, &manager);
    assert_eq!(sync(&process)["result"], "unchanged", "a sync waits until a copy is made");
    assert_eq!(volume.staging(), [""; 0]);
    manager.remove("1/f");
    publishes(&process, &volume, &manager);
    has_spare(&manager, &volume);
}

#[test]
fn every_change_can_begin_with_a_copy() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let process = sparing(&manager, &volume, &[]);
    let first = volume.current().expect("published");
    let content = tree(&volume.join("releases").join(&first));
    let changes: [&dyn Fn(); 8] = [
        &|| manager.put("index.html", "<h1>changed</h1>"),
        &|| manager.put("img/3/deep/new", "new"),
        &|| manager.remove("img/2/x"),
        // A file becomes a directory, and a directory a file.
        &|| {
            manager.remove("index.html");
            manager.put("index.html/index.html", "beneath");
            manager.remove("img/3/deep/new");
            manager.put("img/3", "a file");
        },
        // Two files change places, a third is the same as both.
        &|| {
            manager.put("css/site.css", "<svg/>");
            manager.put("img/pod.svg", "a{}");
            manager.put("css/more.css", "a{}");
        },
        &|| manager.site().files.get_mut("css/site.css").expect("it is there").0 = 0o555,
        &|| {
            let file = manager.site().files.remove("css/more.css").expect("it was there");
            manager.site().files.insert("moved/to.css".to_owned(), file);
        },
        // All of it.
        &|| {
            manager.site().files.clear();
            manager.put("other", "content");
        },
    ];
    for (number, change) in changes.iter().enumerate() {
        let before = volume.current().expect("published");
        let old = volume.tree();
        change();
        manager.upstream.forget();
        publishes(&process, &volume, &manager);
        assert_eq!(
            tree(&volume.join("releases").join(before)),
            old,
            "change {number} left the other release alone"
        );
        has_spare(&manager, &volume);
    }
    assert_eq!(tree(&volume.join("releases").join(first)), content);
    // Back to what is there already: the copy is of another release now, and is made anew.
    manager.site().files.clone_from(&content);
    publishes(&process, &volume, &manager);
    has_spare(&manager, &volume);
    manager.put("index.html", "and on");
    publishes(&process, &volume, &manager);
}

#[test]
fn small_releases_have_no_copy() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let process = start_in_step(&manager, &volume, &["--spare-from", "5"]);
    manager.put("index.html", "changed");
    publishes(&process, &volume, &manager);
    assert_eq!(sync(&process)["result"], "unchanged");
    assert_eq!(volume.staging(), [] as [&str; 0]);
}

/// A release that fails uses the copy up; what is served and what is copied are not touched by that.
#[test]
fn a_failed_release_costs_the_copy_and_nothing_else() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let process = sparing(&manager, &volume, &[]);
    let before = (volume.current(), volume.tree());
    manager.put("index.html", "new");
    manager.fault(|request, _| request.target().ends_with("index.html").then(|| Answer::new(503, "")));
    for _ in 0..2 {
        assert_eq!(try_sync(&process).status(), 502);
        assert_eq!((volume.current(), volume.tree()), before);
        wait_until("a new copy is made", || {
            let original = before.1.iter().all(|(path, _)| volume.staged("seed").join(path).is_file());
            original && volume.staging() == ["seed"]
        });
        assert_eq!(tree(&volume.staged("seed")), before.1);
    }
    manager.recover();
    publishes(&process, &volume, &manager);
}

/// What was damaged in the release is damaged in its copy, which is the same file.
#[test]
fn a_repair_does_away_with_the_copy() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let process = sparing(&manager, &volume, &["--verify-period", "50ms"]);
    fs::write(volume.join("current/css/site.css"), "b{}").expect("it can be written");
    wait_until("it is repaired", || metric(&process, "file_puller_repaired_files_total") >= 1.0);
    manager.put("index.html", "new");
    publishes(&process, &volume, &manager);
}

/// Found before it is shared, as without a copy.
#[test]
fn a_damaged_copy_is_noticed() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let process = sparing(&manager, &volume, &[]);
    fs::write(volume.staged("seed").join("css/site.css"), "longer than it was").expect("it can be written");
    fs::remove_file(volume.staged("seed").join("img/2/x")).expect("it was there");
    manager.put("index.html", "new");
    let outcome = publishes(&process, &volume, &manager);
    assert_eq!(outcome["fetched_files"], 3);
    has_spare(&manager, &volume);
    // What is to go is gone already; or all of it is.
    fs::remove_file(volume.staged("seed").join("index.html")).expect("it was there");
    manager.put("index.html", "newer");
    publishes(&process, &volume, &manager);
    has_spare(&manager, &volume);
    fs::remove_dir_all(volume.staged("seed")).expect("it was there");
    manager.put("index.html", "newest");
    publishes(&process, &volume, &manager);
}

#[test]
fn a_restart_sweeps_the_copy() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    sparing(&manager, &volume, &[]).kill();
    assert_eq!(volume.staging(), ["seed"]);
    let process = start_in_step(&manager, &volume, &[]);
    assert_eq!(volume.staging(), [] as [&str; 0]);
    manager.put("index.html", "new");
    publishes(&process, &volume, &manager);
}
