//! A published release that is damaged on the volume.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

use testkit::{Answer, Process, wait_until};

use crate::content::ContentManager;
use crate::puller::{Volume, metric, start_in_step, start_with_period, sync, try_sync};

const SITE: &[(&str, &str)] =
    &[("index.html", "<h1>hello</h1>"), ("css/site.css", "a{}"), ("img/pod.svg", "<svg/>")];

/// A puller that looks at its release all the time and does not sync by itself.
fn verifying() -> (ContentManager, Volume, Process) {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let process = start_in_step(&manager, &volume, &["--verify-period", "50ms"]);
    (manager, volume, process)
}

fn repaired(process: &Process) -> f64 {
    metric(process, "file_puller_repaired_files_total")
}

#[track_caller]
fn is_whole_again(manager: &ContentManager, volume: &Volume, process: &Process, files: f64) {
    wait_until(&format!("repaired; stderr so far: {}", process.stderr()), || repaired(process) >= files);
    assert_eq!(volume.tree(), manager.site().files);
    assert!((repaired(process) - files).abs() < 0.5, "{}", repaired(process));
    wait_until("staging is swept", || volume.staging().is_empty());
}

#[test]
fn release_file_edited() {
    let (manager, volume, process) = verifying();
    let (path, inode) = (volume.join("current/index.html"), volume.inode("index.html"));
    let mut reader = File::open(&path).expect("it is there");
    // The same length: only the digest tells.
    fs::write(&path, "<h1>h4ck3d</h1>".get(..14).expect("long enough")).expect("it can be written");
    is_whole_again(&manager, &volume, &process, 1.0);
    assert_ne!(volume.inode("index.html"), inode, "through a new inode");
    let mut seen = String::new();
    reader.read_to_string(&mut seen).expect("it can be read");
    assert!(seen.contains("h4ck3d"), "who had it open keeps what he has");
    assert_eq!(manager.asked(), ["/site/index.html"]);
}

/// A source that says nothing until it is told to.
fn hang(manager: &ContentManager) {
    manager.fault(|request, _| {
        let is_file = request.target().ends_with("index.html");
        is_file.then(|| Answer::raw(|stream| drop(stream.read(&mut [0]))))
    });
}

#[test]
fn a_sync_does_not_wait_for_a_repair() {
    let (manager, volume, mut process) = verifying();
    hang(&manager);
    fs::write(volume.join("current/index.html"), "damaged").expect("it can be written");
    for _ in 0..2 {
        wait_until("the repair hangs", || manager.asked().contains(&"/site/index.html".to_owned()));
        // The next repair may begin as soon as the sync has ended.
        manager.upstream.forget();
        let began = Instant::now();
        assert_eq!(sync(&process)["result"], "unchanged");
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    }
    manager.recover();
    // Ends the question that hangs.
    sync(&process);
    is_whole_again(&manager, &volume, &process, 1.0);
    assert!(process.terminate().success());
}

#[test]
fn a_repair_takes_no_longer_than_a_sync_may() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let flags = ["--verify-period", "50ms", "--sync-timeout", "500ms"];
    let process = start_in_step(&manager, &volume, &flags);
    hang(&manager);
    fs::write(volume.join("current/index.html"), "damaged").expect("it can be written");
    process.event("it is given up", |event| {
        let error = event["error"].as_str().unwrap_or_default();
        event["message"].as_str().is_some_and(|message| message.starts_with("cannot repair"))
            && error.contains("--sync-timeout 500ms")
    });
    manager.recover();
    is_whole_again(&manager, &volume, &process, 1.0);
}

/// A period is shorter than a repair may take, and would end each of them before it is done.
#[test]
fn a_sync_that_is_due_waits_for_a_repair() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let flags = ["--period", "50ms", "--verify-period", "50ms"];
    let process = start_with_period(&manager, &volume, &flags);
    wait_until("it is published", || volume.current().is_some());
    manager.fault(|request, site| {
        let is_file = request.target().ends_with("index.html");
        is_file.then(|| {
            std::thread::sleep(Duration::from_millis(500));
            site.answer(request)
        })
    });
    fs::write(volume.join("current/index.html"), "damaged").expect("it can be written");
    is_whole_again(&manager, &volume, &process, 1.0);
}

/// A reader that keeps files in memory watches the link, not every file: a repair shows there.
#[test]
fn repair_is_shown_to_readers() {
    let (manager, volume, process) = verifying();
    let link = || fs::symlink_metadata(volume.join("current")).expect("always there").ino();
    let (release, before) = (volume.current(), link());
    fs::write(volume.join("current/css/site.css"), "b{}").expect("it can be written");
    is_whole_again(&manager, &volume, &process, 1.0);
    let after = link();
    assert_ne!(after, before, "another link,");
    assert_eq!(volume.current(), release, "to the same release");
    let looks = || {
        process.events().iter().filter(|event| event["message"] == "the published release is sound").count()
    };
    let looked = looks();
    wait_until("it has looked again", || looks() > looked);
    assert_eq!(link(), after, "nothing was repaired, so nothing is shown");
}

#[test]
fn release_file_deleted() {
    let (manager, volume, process) = verifying();
    fs::remove_dir_all(volume.join("current/css")).expect("it was there");
    fs::remove_file(volume.join("current/img/pod.svg")).expect("it was there");
    is_whole_again(&manager, &volume, &process, 2.0);
}

#[test]
fn release_file_replaced_by_a_link() {
    let (manager, volume, process) = verifying();
    fs::write(volume.above().join("elsewhere"), "<h1>hello</h1>").expect("a file");
    let link = volume.above().join("link");
    std::os::unix::fs::symlink(volume.above().join("elsewhere"), &link).expect("a link");
    // In one step: the puller looks all the time.
    fs::rename(&link, volume.join("current/index.html")).expect("it can be renamed over");
    is_whole_again(&manager, &volume, &process, 1.0);
}

#[test]
fn link_target_deleted() {
    let (manager, volume, process) = verifying();
    // Moved away first: a repair would put files back into a directory that is being removed.
    let release = volume.join("releases").join(volume.current().expect("published"));
    fs::rename(release, volume.above().join("removed")).expect("it was there");
    is_whole_again(&manager, &volume, &process, 3.0);
}

/// A file whose place is a directory now cannot be renamed over: then the whole release is put together again.
#[test]
fn release_file_became_a_directory() {
    let (manager, volume, process) = verifying();
    let directory = volume.above().join("directory");
    fs::create_dir_all(directory.join("x")).expect("a directory");
    let (here, there) = (rustix::fs::CWD, volume.join("current/index.html"));
    rustix::fs::renameat_with(here, &directory, here, &there, rustix::fs::RenameFlags::EXCHANGE)
        .expect("on one disk");
    process.event("it is said", |event| {
        event["message"].as_str().is_some_and(|message| message.starts_with("cannot repair"))
    });
    wait_until("repaired", || {
        try_sync(&process).status() == 200 && volume.join("current/index.html").is_file()
    });
    assert_eq!(volume.tree(), manager.site().files);
}
