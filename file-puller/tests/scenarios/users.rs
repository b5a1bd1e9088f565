//! Users of one group on one volume: each can go on where another has ended, also where that one was killed.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::SystemTime;

use testkit::{Answer, Process, wait_until};

use crate::content::{ContentManager, Tree};
use crate::puller::{Volume, names, when_asked, with_umask};
use crate::repositories::Repository;

const SITE: &[(&str, &str)] = &[("index.html", "<h1>hello</h1>"), ("css/site.css", "a{}")];
const GIT: [&str; 2] = ["--group-write", "--allow-plain-http"];

/// A puller as this user of group 65532. What its umask takes away, the other users would miss.
fn puller_as(user: u32, url: &str, volume: &Volume, flags: &[&str]) -> Command {
    use std::os::unix::process::CommandExt as _;

    let mut command = with_umask("077");
    command.args(["--log-level", "info", "--source", url]);
    command.arg("--volume").arg(volume.path()).args(flags).uid(user).gid(65532);
    command
}

/// Runs it with `--once`.
fn once_as(user: u32, url: &str, volume: &Volume, flags: &[&str]) -> (i32, String) {
    let done = puller_as(user, url, volume, flags).arg("--once").output().expect("it can be started");
    (done.status.code().expect("it exits"), String::from_utf8(done.stderr).expect("UTF-8"))
}

/// A volume that belongs to user 65532, and that user's group may write.
fn volume_of_a_group() -> Volume {
    let volume = Volume::new();
    std::os::unix::fs::chown(volume.path(), Some(65532), Some(65532)).expect("this test runs as root");
    fs::set_permissions(volume.path(), fs::Permissions::from_mode(0o2775)).expect("it is ours");
    fs::set_permissions(volume.above(), fs::Permissions::from_mode(0o755)).expect("it is ours");
    volume
}

#[test]
#[ignore = "needs root: file-puller/tests/users/run.sh"]
fn users_of_one_group_take_over_from_each_other() {
    let (manager, volume) = (ContentManager::start(SITE), volume_of_a_group());
    let flags = ["--group-write", "--keep", "0", "--keep-for", "0s"];
    let take_over = |user: u32| {
        let (code, stderr) = once_as(user, &manager.url(), &volume, &flags);
        assert_eq!(code, 0, "user {user}: {stderr}");
        let mut open = vec![volume.join("current/.")];
        let mut files = Tree::new();
        while let Some(at) = open.pop() {
            for name in names(&at) {
                let path = at.join(name);
                let relative = path.strip_prefix(volume.join("current/.")).expect("beneath the root");
                let relative = relative.to_str().expect("UTF-8").to_owned();
                if path.is_dir() {
                    open.push(path);
                } else {
                    let mode = fs::metadata(&path).expect("it is there").permissions().mode() & 0o7777;
                    files.insert(relative, (mode, fs::read(&path).expect("it can be read")));
                }
            }
        }
        assert_eq!(files, manager.site().files, "user {user}");
        assert_eq!(volume.staging(), [] as [&str; 0], "user {user}");
        // The old release went, whichever puller had made it.
        assert_eq!(volume.releases().len(), 1, "user {user}");
    };
    take_over(65532);
    for (version, user) in [65533, 65532, 65534].into_iter().enumerate() {
        manager.put("index.html", format!("version {version}"));
        take_over(user);
        // Nothing new: nothing to do for the other either.
        take_over(user - 1);
    }
}

#[test]
#[ignore = "needs root: file-puller/tests/users/run.sh"]
fn what_was_kept_of_a_commit_serves_the_next_user_as_well() {
    let (repository, volume) = (Repository::start(), volume_of_a_group());
    for (version, user) in [65532, 65533, 65532].into_iter().enumerate() {
        repository.commit("index.html", &format!("version {version}"));
        repository.server.forget();
        let (code, stderr) = once_as(user, &repository.url(), &volume, &GIT);
        assert_eq!(code, 0, "user {user}: {stderr}");
        let content = fs::read(volume.join("current/index.html")).expect("it was published");
        assert_eq!(content, format!("version {version}").as_bytes());
        let requests = repository.server.requests();
        let asks_for_the_rest =
            requests.iter().any(|request| String::from_utf8_lossy(&request.body).contains("have "));
        assert_eq!(asks_for_the_rest, version > 0, "user {user}: {requests:?}");
    }
}

/// It was made for its owner alone, and has names of files that were left out.
#[test]
#[ignore = "needs root: file-puller/tests/users/run.sh"]
fn what_was_kept_of_a_commit_without_the_flag_is_closed_until_its_owner_gives_the_flag() {
    let (repository, volume) = (Repository::start(), volume_of_a_group());
    let mode =
        |name: &str| fs::metadata(volume.join(name)).expect("it is there").permissions().mode() & 0o777;
    let modes = || (mode(".git-objects"), mode(".git-objects/known"));
    for (version, (user, flags, expected)) in [
        (65532, &GIT[1..], (0o700, 0o600)),
        (65532, &GIT[..], (0o770, 0o660)),
        (65533, &GIT[..], (0o770, 0o660)),
    ]
    .into_iter()
    .enumerate()
    {
        repository.commit("index.html", &format!("version {version}"));
        let (code, stderr) = once_as(user, &repository.url(), &volume, flags);
        assert_eq!((code, modes()), (0, expected), "user {user}: {stderr}");
    }
}

/// A user without the flag cannot write what the other's commit has left behind, and learns why.
#[test]
#[ignore = "needs root: file-puller/tests/users/run.sh"]
fn users_without_the_flag_are_told_of_it_by_a_git_source_too() {
    let (repository, volume) = (Repository::start(), volume_of_a_group());
    repository.commit("index.html", "old");
    assert_eq!(once_as(65532, &repository.url(), &volume, &GIT).0, 0);
    fs::set_permissions(volume.join(".git-objects"), fs::Permissions::from_mode(0o755)).expect("it is there");
    repository.commit("index.html", "new");
    let (code, stderr) = once_as(65533, &repository.url(), &volume, &GIT);
    assert_eq!((code, stderr.lines().count()), (74, 1), "{stderr}");
    for said in ["user 65532, group 65532", "user 65533, group 65532", "fsGroup", "--group-write"] {
        assert!(stderr.contains(said), "{said} is missing in {stderr}");
    }
}

#[test]
#[ignore = "needs root: file-puller/tests/users/run.sh"]
fn what_had_arrived_for_a_user_who_was_killed_is_taken_over() {
    let (manager, volume) = (ContentManager::start(SITE), volume_of_a_group());
    manager.put("z", "the last to be fetched");
    manager.fault(|request, _| {
        // Until the client is gone.
        let wait = |stream: &mut std::net::TcpStream| drop(stream.read(&mut [0]));
        request.target().ends_with("/z").then(|| Answer::raw(wait))
    });
    let flags = ["--group-write", "--concurrency", "1"];
    let mut killed = Process::start_command(when_asked(puller_as(65532, &manager.url(), &volume, &flags)));
    wait_until("the last file is asked for", || manager.asked().iter().any(|path| path.ends_with("/z")));
    // A file that has arrived gets its mode last.
    let has_arrived = |(path, content): &(&str, &str)| {
        let mut releases = volume.staging().into_iter().filter(|name| !name.contains('.'));
        let staged = releases.find_map(|id| fs::metadata(volume.staged(&id).join(path)).ok());
        staged.is_some_and(|file| {
            file.len() == content.len() as u64 && file.permissions().mode() & 0o777 == 0o644
        })
    };
    wait_until("all but the last file are there", || SITE.iter().all(has_arrived));
    killed.kill();
    manager.recover();
    manager.upstream.forget();
    let (code, stderr) = once_as(65533, &manager.url(), &volume, &flags);
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(manager.asked(), ["/site/manifest.json", "/site/z"]);
    assert_eq!(names(&volume.join(".staging")), ["lock"]);
}

#[test]
#[ignore = "needs root: file-puller/tests/users/run.sh"]
fn the_flag_is_of_use_on_a_volume_that_was_made_without_it() {
    let (manager, volume) = (ContentManager::start(SITE), volume_of_a_group());
    let removing = ["--group-write", "--keep", "0", "--keep-for", "0s"];
    for (user, flags) in [(65532, &[][..]), (65532, &["--group-write"]), (65533, &removing)] {
        manager.put("index.html", format!("{user} {flags:?}"));
        let (code, stderr) = once_as(user, &manager.url(), &volume, flags);
        assert_eq!(code, 0, "user {user} {flags:?}: {stderr}");
        let content = fs::read_to_string(volume.join("current/index.html")).expect("it was published");
        assert_eq!(content, format!("{user} {flags:?}"));
    }
    assert_eq!(volume.releases().len(), 1, "the first went as well");
}

#[test]
#[ignore = "needs root: file-puller/tests/users/run.sh"]
fn a_damaged_release_that_was_made_without_the_flag_is_put_together_again_by_another_user() {
    let (manager, volume) = (ContentManager::start(SITE), volume_of_a_group());
    for flags in [&[][..], &["--group-write"]] {
        assert_eq!(once_as(65532, &manager.url(), &volume, flags).0, 0);
    }
    fs::remove_file(volume.join("current/css/site.css")).expect("it was there");
    let (code, stderr) = once_as(65533, &manager.url(), &volume, &["--group-write"]);
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(fs::read(volume.join("current/css/site.css")).expect("it is back"), SITE[1].1.as_bytes());
}

/// The first user has never started with the flag since.
#[test]
#[ignore = "needs root: file-puller/tests/users/run.sh"]
fn an_old_release_that_only_another_user_can_remove_fails_no_sync() {
    let (manager, volume) = (ContentManager::start(&[]), volume_of_a_group());
    let publish = |version: u8, user: u32| {
        manager.put("large", vec![version; 1 << 20]);
        let flags = ["--group-write", "--keep", "9", "--keep-for", "0s", "--max-volume-size", "3500KiB"];
        let (code, stderr) = once_as(user, &manager.url(), &volume, &flags);
        assert_eq!(code, 0, "release {version}: {stderr}");
        (volume.current().expect("published"), stderr)
    };
    let (first, _) = publish(1, 65532);
    let tree = volume.join("releases").join(&first);
    fs::set_permissions(&tree, fs::Permissions::from_mode(0o755)).expect("this test runs as root");
    let (second, _) = publish(2, 65533);
    let (third, _) = publish(3, 65533);
    let (fourth, stderr) = publish(4, 65533);
    assert!(stderr.contains("old release not removed") && stderr.contains(&first), "{stderr}");
    let mut left = [first, third, fourth];
    left.sort();
    assert_eq!(volume.releases(), left, "and not {second}");
}

/// As a crash of another user's process leaves it.
#[test]
#[ignore = "needs root: file-puller/tests/users/run.sh"]
fn half_a_release_of_another_user_does_not_keep_a_puller_from_its_start() {
    let (manager, volume) = (ContentManager::start(SITE), volume_of_a_group());
    assert_eq!(once_as(65532, &manager.url(), &volume, &["--group-write"]).0, 0);
    let half = volume.join("releases/bbbbbbbbbbbbbbbb");
    fs::create_dir(&half).expect("a directory");
    let (code, stderr) = once_as(65533, &manager.url(), &volume, &["--group-write"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("bbbbbbbbbbbbbbbb") && stderr.contains("is not swept"), "{stderr}");
    assert!(half.exists());
}

/// Without the flag a process of another user leaves what only that user can remove.
#[test]
#[ignore = "needs root: file-puller/tests/users/run.sh"]
fn what_another_user_has_left_does_not_keep_a_puller_from_its_start() {
    let (manager, volume) = (ContentManager::start(SITE), volume_of_a_group());
    assert_eq!(once_as(65532, &manager.url(), &volume, &["--group-write"]).0, 0);
    let left = volume.join(".staging/process-0123456789abcdef");
    fs::create_dir(&left).expect("a directory");
    fs::write(left.join("lock"), "").expect("a file");
    let (code, stderr) = once_as(65533, &manager.url(), &volume, &["--group-write"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("process-0123456789abcdef") && stderr.contains("is not swept"), "{stderr}");
    assert!(left.exists());
}

#[test]
#[ignore = "needs root: file-puller/tests/users/run.sh"]
fn a_release_that_another_user_has_replaced_is_kept_for_its_time() {
    let (manager, volume) = (ContentManager::start(SITE), volume_of_a_group());
    let flags = ["--group-write", "--keep", "0", "--keep-for", "1h"];
    assert_eq!(once_as(65532, &manager.url(), &volume, &flags).0, 0);
    let first = volume.current().expect("published");
    // It was published long ago, and is replaced now.
    let manifest =
        fs::File::open(volume.join("releases").join(format!("{first}.json"))).expect("it is there");
    manifest.set_modified(SystemTime::UNIX_EPOCH).expect("this test runs as root");
    manager.put("index.html", "new");
    for user in [65533, 65534] {
        let (code, stderr) = once_as(user, &manager.url(), &volume, &flags);
        assert_eq!(code, 0, "user {user}: {stderr}");
        assert!(volume.releases().contains(&first), "user {user}");
    }
}

#[test]
#[ignore = "needs root: file-puller/tests/users/run.sh"]
fn users_without_the_flag_are_told_of_it() {
    let (manager, volume) = (ContentManager::start(SITE), volume_of_a_group());
    assert_eq!(once_as(65532, &manager.url(), &volume, &[]).0, 0);
    manager.put("index.html", "new");
    let (code, stderr) = once_as(65533, &manager.url(), &volume, &[]);
    assert_eq!((code, stderr.lines().count()), (74, 1), "{stderr}");
    for said in ["user 65532, group 65532", "user 65533, group 65532", "fsGroup", "--group-write"] {
        assert!(stderr.contains(said), "{said} is missing in {stderr}");
    }
    assert_eq!(fs::read(volume.join("current/index.html")).expect("it stays"), SITE[0].1.as_bytes());
}
