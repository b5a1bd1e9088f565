//! What the volume may be when the puller starts, and what it may become meanwhile.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::Command;

use rustix::fs::FlockOperation;
use testkit::{Process, wait_until};

use crate::content::ContentManager;
use crate::puller::{
    BINARY, Volume, fails, names, once, publishes, readyz, start, start_in_step, sync, tree, try_sync,
    when_asked, with_umask,
};
use crate::tarball::{gzip, tar};

const SITE: &[(&str, &str)] = &[("index.html", "<h1>hello</h1>"), ("css/site.css", "a{}")];

#[test]
fn volume_is_empty_or_missing() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let (code, stderr) = once(&manager.url(), &volume.path(), &[]);
    assert_eq!(code, 0, "{stderr}");
    let missing = volume.above().join("missing");
    let (code, stderr) = once(&manager.url(), &missing, &[]);
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(tree(&missing.join("current")), manager.site().files);
    // A directory above it that is missing too is a typing error, not a wish.
    let (code, stderr) = once(&manager.url(), &volume.above().join("no/such"), &[]);
    assert_eq!(code, 74, "{stderr}");
    assert!(stderr.contains("cannot make the volume") && stderr.contains("no/such"), "{stderr}");
    fs::write(volume.above().join("file"), "").expect("a file");
    for not_a_volume in ["file", "file/volume"] {
        let (code, stderr) = once(&manager.url(), &volume.above().join(not_a_volume), &[]);
        assert_eq!((code, stderr.lines().count()), (74, 1), "{stderr}");
        assert!(stderr.contains(not_a_volume), "{stderr}");
    }
}

#[test]
fn leftover_temp_link() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    start_in_step(&manager, &volume, &[]).kill();
    let whole = volume.tree();
    // As a crash at each step would leave it, and worse.
    symlink("releases/0123456789abcdef", volume.join(".staging/current")).expect("a link");
    fs::create_dir_all(volume.join(".staging/0123456789abcdef/css")).expect("a directory");
    fs::write(volume.join(".staging/0123456789abcdef/css/half"), "ha").expect("a file");
    fs::write(volume.join(".staging/0123456789abcdef.json"), "{").expect("a file");
    fs::write(volume.join("releases/aaaaaaaaaaaaaaaa.json"), "{").expect("a manifest without its tree");
    fs::create_dir(volume.join("releases/bbbbbbbbbbbbbbbb")).expect("a tree without its manifest");
    let process = start_in_step(&manager, &volume, &[]);
    assert_eq!(volume.tree(), whole);
    assert_eq!(volume.staging(), [] as [&str; 0]);
    assert_eq!(volume.releases().len(), 1);
    manager.put("index.html", "new");
    publishes(&process, &volume, &manager);
}

/// A crash between the release's last name and the link: the next start has only to point at it.
#[test]
fn a_complete_release_without_the_link_is_not_fetched_again() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    start_in_step(&manager, &volume, &[]).kill();
    fs::remove_file(volume.join("current")).expect("it was there");
    let (code, stderr) = once(&manager.url(), &volume.path(), &[]);
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(volume.tree(), manager.site().files);
    assert_eq!(manager.asked(), ["/site/manifest.json"]);
}

#[test]
fn link_deleted_while_running() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let process = start_in_step(&manager, &volume, &[]);
    fs::remove_file(volume.join("current")).expect("it was there");
    publishes(&process, &volume, &manager);
}

#[test]
fn link_target_deleted_before_the_start() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    start_in_step(&manager, &volume, &[]).kill();
    let release = volume.current().expect("published");
    fs::remove_dir_all(volume.join("releases").join(&release)).expect("it was there");
    let (code, stderr) = once(&manager.url(), &volume.path(), &[]);
    assert_eq!(code, 0, "{stderr}");
    assert_eq!((volume.current(), volume.tree()), (Some(release), manager.site().files.clone()));
}

#[test]
fn foreign_files_in_volume() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    fs::create_dir_all(volume.join("lost+found")).expect("a directory");
    fs::create_dir_all(volume.join("releases/old-site")).expect("a directory");
    fs::write(volume.join("releases/notes.json"), "mine").expect("a file");
    fs::write(volume.join("README"), "mine").expect("a file");
    let process = start_in_step(&manager, &volume, &["--keep", "0", "--keep-for", "0s"]);
    manager.put("index.html", "new");
    publishes(&process, &volume, &manager);
    assert_eq!(sync(&process)["result"], "unchanged");
    assert_eq!(
        names(&volume.path()),
        [".source.json", ".staging", "README", "current", "lost+found", "releases"]
    );
    assert_eq!(fs::read_to_string(volume.join("README")).expect("still there"), "mine");
    let current = volume.current().expect("published");
    let mut expected =
        vec![current.clone(), current + ".json", "notes.json".to_owned(), "old-site".to_owned()];
    expected.sort();
    assert_eq!(names(&volume.join("releases")), expected);
}

#[test]
fn current_is_a_directory() {
    let manager = ContentManager::start(SITE);
    let refused = |volume: &Volume, what: &str| {
        let before = volume.snapshot();
        let (code, stderr) = once(&manager.url(), &volume.path(), &[]);
        assert_eq!((code, stderr.lines().count()), (78, 1), "{stderr}");
        assert!(stderr.contains(what) && stderr.contains("move it away"), "{stderr}");
        assert_eq!(volume.snapshot(), before);
    };
    let volume = Volume::new();
    fs::create_dir(volume.join("current")).expect("a directory");
    fs::write(volume.join("current/index.html"), "somebody's").expect("a file");
    refused(&volume, "current is not a symbolic link");
    let volume = Volume::new();
    symlink(".worktrees/0123456789abcdef", volume.join("current")).expect("a link");
    refused(&volume, "current points at \".worktrees/0123456789abcdef\", which is not a release");
}

#[test]
fn two_pullers_one_volume() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let mut first = start_in_step(&manager, &volume, &[]);
    let before = volume.snapshot();
    let (code, stderr) = once(&manager.url(), &volume.path(), &[]);
    // As log-agent says it of its state directory: the next start may well find the lock free.
    assert_eq!((code, stderr.lines().count()), (69, 1), "{stderr}");
    let said = format!("another file-puller is writing {}; stop it", volume.path().display());
    assert!(stderr.contains(&said), "{stderr}");
    assert_eq!(volume.snapshot(), before);
    // The lock ends with its holder, however that ends.
    first.kill();
    let (code, stderr) = once(&manager.url(), &volume.path(), &[]);
    assert_eq!(code, 0, "{stderr}");
}

/// Over NFS an flock(2) holds within a node, and an earlier version has no other. Each of the two locks keeps a second puller out.
#[test]
fn each_of_the_two_locks_keeps_a_second_puller_out() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let command = || {
        let mut command = Command::new(BINARY);
        command.args(["--source", &manager.url(), "--volume"]).arg(volume.path());
        command
    };
    let refused = |without: &str| {
        let output = command().arg("--once").env("FILE_PULLER_WITHOUT", without).output().expect("it runs");
        let stderr = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!(output.status.code(), Some(69), "{stderr}");
        assert!(stderr.contains("another file-puller is writing"), "{stderr}");
    };
    // Two nodes: only the lock on the file is seen by both.
    let mut process = command();
    process.env("FILE_PULLER_WITHOUT", "flock");
    let process = Process::start_command(process);
    wait_until("it is published", || volume.current().is_some());
    refused("flock");
    drop(process);
    // An earlier version: only the lock on the directory.
    let directory = fs::File::open(volume.path()).expect("a directory");
    rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive).expect("it is free");
    refused("");
    drop(directory);
    let (code, stderr) = once(&manager.url(), &volume.path(), &[]);
    assert_eq!(code, 0, "{stderr}");
}

#[test]
fn the_start_sweeps_only_what_has_no_owner() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let pull = || {
        let (code, stderr) = once(&manager.url(), &volume.path(), &[]);
        assert_eq!(code, 0, "{stderr}");
    };
    pull();
    let others = volume.join(".staging/process-0123456789abcdef");
    fs::create_dir_all(others.join("staged")).expect("a directory");
    let lock = fs::File::create(others.join("lock")).expect("a file");
    // As this test's process is another one, it owns that directory.
    rustix::fs::fcntl_lock(&lock, FlockOperation::NonBlockingLockExclusive).expect("it is free");
    pull();
    assert!(others.join("staged").is_dir());
    drop(lock);
    pull();
    assert!(!others.exists());
}

/// A limit on the size of files is a disk that is full for whoever writes beyond it, and needs no disk of the test's own.
fn start_with_small_disk(url: &str, volume: &Volume) -> Process {
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ && ulimit -f 1000 && exec \"$@\"", "sh", BINARY]);
    command.args(["--source", url, "--volume"]).arg(volume.path());
    Process::start_command(when_asked(command))
}

#[test]
fn disk_full_while_staging() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let process = start_with_small_disk(&manager.url(), &volume);
    assert_eq!(sync(&process)["result"], "unchanged");
    let before = (volume.tree(), volume.current());
    manager.put("large", vec![1; 3_000_000]);
    let outcome = fails(&process, 500, "volume");
    let error = outcome["error"].as_str().expect("an error").to_owned();
    assert!(error.starts_with("cannot write large on ") && error.contains("File too large"), "{error}");
    assert_eq!((volume.tree(), volume.current()), before);
    assert_eq!(volume.staging(), [] as [&str; 0], "the space is given back");
    manager.remove("large");
    manager.put("small", "fits");
    publishes(&process, &volume, &manager);
}

/// The archive is fine and the volume is not: 500, not 502.
#[test]
fn disk_full_while_unpacking() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    manager.fault(|_, site| Some(testkit::Answer::new(200, gzip(&tar(&site.files)))));
    let process = start_with_small_disk(&manager.upstream.url("/site.tar.gz"), &volume);
    assert_eq!(try_sync(&process).status(), 200);
    let before = (volume.tree(), volume.current());
    manager.put("large", vec![1; 3_000_000]);
    fails(&process, 500, "volume");
    assert_eq!((volume.tree(), volume.current()), before);
    assert_eq!(volume.staging(), [] as [&str; 0], "the space is given back");
    manager.fault(|_, _| Some(testkit::Answer::new(200, "no archive")));
    fails(&process, 502, "archive");
}

#[test]
fn disk_too_small_for_the_release() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let (code, stderr) =
        once(&manager.url(), &volume.path(), &["--min-free", "1000000TiB", "--log-level", "error"]);
    assert_eq!((code, stderr.lines().count()), (74, 1), "{stderr}");
    assert!(stderr.contains("free") && stderr.contains("--min-free"), "{stderr}");
    assert_eq!(manager.asked(), ["/site/manifest.json"], "nothing is fetched that does not fit");
    volume.assert_nothing_written();
}

/// A volume that takes no new names leaves what is published as it is, and the message says what is the matter.
#[track_caller]
fn stays_as_it_is(manager: &ContentManager, volume: &Volume, mut command: Command, why: &str) {
    let before = volume.snapshot();
    command.args([BINARY, "--source", &manager.url(), "--volume"]).arg(volume.path());
    let process = Process::start_command(when_asked(command));
    let outcome = fails(&process, 500, "volume");
    let error = outcome["error"].as_str().expect("an error").to_owned();
    assert!(error.contains(volume.path().to_str().expect("UTF-8")) && error.contains(why), "{error}");
    assert_eq!(readyz(&process).status(), 200, "the last good release stays");
    drop(process);
    assert_eq!(volume.snapshot(), before);
}

#[test]
fn volume_read_only() {
    let (code, stderr) = once("http://127.0.0.1:1/manifest.json", "/proc/volume".as_ref(), &[]);
    assert_eq!(code, 74, "{stderr}");
    assert!(stderr.contains("cannot make the volume /proc/volume"), "{stderr}");
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    assert_eq!(once(&manager.url(), &volume.path(), &[]).0, 0);
    manager.put("index.html", "new");

    // Not writable for this user. Root may write everywhere until it gives its capabilities away.
    let ours = [volume.path(), volume.join("releases"), volume.join(".staging")];
    let set_modes =
        |mode| ours.iter().try_for_each(|path| fs::set_permissions(path, fs::Permissions::from_mode(mode)));
    set_modes(0o555).expect("it is ours");
    let mut without_capabilities = Command::new("env");
    if rustix::process::geteuid().is_root() {
        without_capabilities = Command::new("setpriv");
        without_capabilities.args(["--inh-caps=-all", "--bounding-set=-all"]);
    }
    let why = "Permission denied (os error 13); the directory above belongs to user";
    stays_as_it_is(&manager, &volume, without_capabilities, why);
    set_modes(0o755).expect("it is ours");

    // Mounted read-only, in a mount namespace of the test's own, where the kernel lets this user have one.
    let namespaces = [["-m", "--"], ["-rm", "--"]];
    let script = "mount --bind \"$0\" \"$0\" && mount -o remount,bind,ro \"$0\" && exec \"$@\"";
    let unshare = |flags: &[&str; 2]| {
        let mut command = Command::new("unshare");
        command.args(flags).args(["sh", "-c", script]).arg(volume.path());
        command
    };
    let can = |flags: &&[&str; 2]| unshare(flags).arg("true").output().is_ok_and(|ran| ran.status.success());
    if let Some(flags) = namespaces.iter().find(can) {
        stays_as_it_is(&manager, &volume, unshare(flags), "Read-only file system");
    }
    assert_eq!(once(&manager.url(), &volume.path(), &[]).0, 0);
    assert_eq!(volume.tree(), manager.site().files);
}

/// What the umask takes away, readers under another user would miss.
#[test]
fn umask_has_no_say() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let mut command = with_umask("077");
    command.args(["--once", "--source", &manager.url(), "--volume"]).arg(volume.path());
    assert!(Process::start_as_is(command).wait().success());
    assert_eq!(volume.tree(), manager.site().files);
    let manifest = format!("releases/{}.json", volume.current().expect("published"));
    for (name, expected) in
        [("releases", 0o755), (".staging", 0o755), (&*manifest, 0o644), (".source.json", 0o644)]
    {
        let mode = fs::metadata(volume.join(name)).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, expected, "{name}");
    }
}

/// A kubelet gives every file and directory of a volume to the Pod's `fsGroup`, each time that it mounts the volume.
#[test]
fn what_a_kubelet_does_for_an_fs_group_is_no_damage() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    manager.site().files.insert("bin/program".to_owned(), (0o755, b"#!/bin/sh".to_vec()));
    assert_eq!(once(&manager.url(), &volume.path(), &[]).0, 0);
    let mut open = vec![volume.path()];
    while let Some(path) = open.pop() {
        let metadata = fs::symlink_metadata(&path).expect("it is there");
        if metadata.is_symlink() {
            continue;
        }
        let added = if metadata.is_dir() { 0o2770 } else { 0o660 };
        let mode = metadata.permissions().mode() & 0o7777 | added;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("it is ours");
        if metadata.is_dir() {
            open.extend(names(&path).iter().map(|name| path.join(name)));
        }
    }
    manager.upstream.forget();
    let before = volume.snapshot();
    let process = start(&manager, &volume, &["--verify-period", "50ms"]);
    testkit::wait_until("it is verified", || {
        process.events().iter().any(|event| event["message"] == "the published release is sound")
    });
    assert_eq!(sync(&process)["result"], "unchanged");
    assert!(manager.asked().iter().all(|path| path == "/site/manifest.json"), "{:?}", manager.asked());
    assert_eq!(volume.snapshot(), before);
    // What did not change is still shared.
    manager.put("index.html", "new");
    assert_eq!(sync(&process)["fetched_files"], 1);
}

#[test]
fn directories_can_be_writable_for_their_group() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    assert_eq!(once(&manager.url(), &volume.path(), &["--group-write"]).0, 0);
    for directory in ["releases", ".staging", "current/.", "current/css"] {
        let mode = fs::metadata(volume.join(directory)).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o775, "{directory}");
    }
    let manifest = volume.join("releases").join(volume.current().expect("published") + ".json");
    assert_eq!(fs::metadata(manifest).expect("it is there").permissions().mode() & 0o777, 0o664);
}

/// As two pullers on two nodes, on a network file system whose locks only seem to work: both write, and others start meanwhile.
#[test]
fn locks_that_always_succeed_tear_nothing() {
    const FILES: usize = 30;
    let (manager, volume) = (ContentManager::start(&[]), Volume::new());
    let put = |version: usize| {
        let mut site = manager.site();
        for file in 0..FILES {
            let content = format!("{version}").into_bytes();
            site.files.insert(format!("d{}/{file}", file % 3), (0o644, content));
        }
    };
    put(0);
    let command = |flags: &[&str]| {
        let mut command = Command::new(BINARY);
        command.args(["--source", &manager.url(), "--spare-from", "1", "--keep", "99", "--volume"]);
        command.arg(volume.path()).args(flags).env("FILE_PULLER_WITHOUT", "locks");
        command
    };
    let long = ["--period", "30ms", "--max-backoff", "50ms", "--verify-period", "100ms"];
    let pullers = [Process::start_command(command(&long)), Process::start_command(command(&long))];
    let mut starting = Vec::new();
    let until = std::time::Instant::now() + std::time::Duration::from_secs(6);
    let (mut version, mut looks) = (0, 0);
    while std::time::Instant::now() < until {
        if looks % 3 == 0 {
            version += 1;
            put(version);
            starting.push(Process::start_as_is(command(&["--once"])));
            starting.retain_mut(|process: &mut Process| !process.has_ended());
        }
        looks += 1;
        let Some(current) = volume.current() else { continue };
        let seen = tree(&volume.join("releases").join(current));
        assert_eq!(seen.len(), FILES, "torn: {:?}", seen.keys());
        let first = seen.values().next().expect("a file").clone();
        assert!(seen.values().all(|file| *file == first), "mixed");
    }
    assert!(looks > 10, "{looks}");
    drop((starting, pullers));
    let (code, stderr) = once(&manager.url(), &volume.path(), &[]);
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(volume.tree(), manager.site().files);
    assert_eq!(volume.staging(), [] as [&str; 0]);
}
