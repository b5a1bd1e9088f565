//! SIGKILL at every step that changes the volume, each in turn, until a run gets through.

use std::process::Command;

use rustix::process::Signal;
use testkit::Process;

use crate::content::{ContentManager, Tree};
use crate::puller::{BINARY, Volume, once, tree};
use crate::tarball::{gzip, tar};

/// What happens in one sync: how the volume and the content came to be, and what the sync has to do.
struct Transition {
    name: &'static str,
    /// Releases that were published before, the last of them is current.
    before: &'static [&'static [(&'static str, &'static str)]],
    /// What the content manager has now.
    now: &'static [(&'static str, &'static str)],
    /// What somebody did to the volume meanwhile.
    damage: fn(&Volume),
}

const A: &[(&str, &str)] =
    &[("index.html", "A"), ("css/site.css", "a{}"), ("img/logo.svg", "<svg/>"), ("x", "x"), ("img/2/x", "")];
const B: &[(&str, &str)] =
    &[("index.html", "B"), ("css/site.css", "a{}"), ("img/new/logo.svg", "<svg/>"), ("y", "y")];
const C: &[(&str, &str)] = &[("index.html", "C"), ("css", "a{}"), ("z", "z")];

const TRANSITIONS: &[Transition] = &[
    Transition { name: "the first release", before: &[], now: A, damage: |_| {} },
    Transition { name: "a change", before: &[A], now: B, damage: |_| {} },
    Transition { name: "a directory becomes a file", before: &[B], now: C, damage: |_| {} },
    Transition { name: "back to an earlier release", before: &[A, B], now: A, damage: |_| {} },
    Transition {
        name: "back to an earlier release that is damaged",
        before: &[A, B],
        now: A,
        damage: |volume| {
            let current = volume.current().expect("published");
            for id in volume.releases().into_iter().filter(|id| *id != current) {
                std::fs::remove_file(volume.join("releases").join(id).join("x")).expect("it was there");
            }
        },
    },
    Transition { name: "old releases go", before: &[A, B, C], now: A, damage: |_| {} },
];

/// How the content manager gives its content.
#[derive(Clone, Copy)]
enum Form {
    Manifest,
    Archive,
}

impl Form {
    fn url(self, manager: &ContentManager) -> String {
        match self {
            Self::Manifest => manager.url(),
            Self::Archive => manager.upstream.url("/site.tar.gz"),
        }
    }

    fn serve(self, manager: &ContentManager) {
        if let Self::Archive = self {
            manager.fault(|_, site| Some(testkit::Answer::new(200, gzip(&tar(&site.files)))));
        }
    }
}

/// Runs the puller to its end or to the n-th step, whichever comes first; whether it came to its end.
fn run_until_killed(url: &str, volume: &Volume, keep: &str, step: u32) -> bool {
    let mut command = Command::new(BINARY);
    command.args(["--once", "--concurrency", "2", "--keep", keep, "--keep-for", "0s", "--source", url]);
    command.arg("--volume").arg(volume.path()).env("FILE_PULLER_KILL_AT", step.to_string());
    let mut process = Process::start_as_is(command);
    let status = process.wait();
    if std::os::unix::process::ExitStatusExt::signal(&status) == Some(Signal::KILL.as_raw()) {
        return false;
    }
    assert!(status.success(), "{}", process.stderr());
    true
}

fn expected(files: &[(&str, &str)]) -> Tree {
    ContentManager::start(files).site().files.clone()
}

#[test]
fn sigkill_everywhere() {
    let kills: u32 = std::thread::scope(|threads| {
        let transitions: Vec<_> =
            TRANSITIONS.iter().map(|one| threads.spawn(|| kill_at_each_step(one, Form::Manifest))).collect();
        let archives: Vec<_> =
            TRANSITIONS.iter().map(|one| threads.spawn(|| kill_at_each_step(one, Form::Archive))).collect();
        let others = [
            threads.spawn(kill_while_repairing),
            threads.spawn(kill_with_a_spare),
            threads.spawn(kill_among_many),
        ];
        transitions.into_iter().chain(archives).chain(others).map(|one| one.join().expect("it passed")).sum()
    });
    assert!(kills >= 200, "only {kills} steps: are the fault points compiled in?");
}

/// More files than one thread writes: a step of any thread is the last of all. Every ninety-seventh.
fn kill_among_many() -> u32 {
    let (old, new) = (ContentManager::start(A), ContentManager::start(A));
    for number in 0..300 {
        new.put(&format!("f/{number}"), format!("content {number}"));
    }
    Form::Archive.serve(&new);
    let (url, files) = (Form::Archive.url(&new), new.site().files.clone());
    let mut kills = 0;
    loop {
        let volume = Volume::new();
        assert_eq!(once(&old.url(), &volume.path(), &[]).0, 0);
        let survived = run_until_killed(&url, &volume, "0", kills * 97 + 1);
        let seen = volume.tree();
        assert!(seen == files || (!survived && seen == old.site().files), "step {}", kills * 97 + 1);
        let (code, stderr) = once(&url, &volume.path(), &["--keep", "0", "--keep-for", "0s"]);
        assert_eq!(code, 0, "{stderr}");
        assert_eq!(volume.tree(), files);
        assert_eq!(volume.staging(), [] as [&str; 0]);
        if survived {
            assert!(kills > 5, "only {kills} steps");
            return kills;
        }
        kills += 1;
    }
}

/// A repair puts one file in the place of another, so that nobody can see less than was there when it began.
fn kill_while_repairing() -> u32 {
    let files = expected(A);
    let mut step = 1;
    loop {
        let (manager, volume) = (ContentManager::start(A), Volume::new());
        assert_eq!(once(&manager.url(), &volume.path(), &[]).0, 0);
        std::fs::remove_file(volume.join("current/css/site.css")).expect("it was there");
        std::fs::write(volume.join("current/x"), "y").expect("a file");
        let path = volume.path();
        let mut command = Command::new(BINARY);
        command.args(["--source", &manager.url(), "--period", "1h", "--verify-period", "20ms", "--volume"]);
        command.arg(&path).env("FILE_PULLER_KILL_AT", step.to_string());
        // The first sync would find the missing file, too: it fails, so that the repair is what is killed.
        let failed = std::sync::atomic::AtomicBool::new(false);
        manager.fault(move |request, _| {
            (request.target() == "/site/manifest.json"
                && !failed.swap(true, std::sync::atomic::Ordering::SeqCst))
            .then(|| testkit::Answer::new(503, "").with("Retry-After", "3600"))
        });
        let mut process = Process::start_command(command);
        testkit::wait_until("it is repaired or killed", || {
            process.has_ended() || process.events().iter().any(|event| event["message"] == "repaired")
        });
        let survived = !process.has_ended();
        drop(process);
        let seen = tree(&volume.join("current"));
        assert!(seen.iter().all(|(path, file)| path == "x" || files[path] == *file), "step {step}: {seen:?}");
        assert!(seen.len() >= files.len() - 1, "step {step}: {seen:?}");
        assert!(!survived || seen == files, "{seen:?}");
        // A change makes the next sync put the release together anew from what is sound.
        manager.recover();
        manager.put("x", "new");
        let (code, stderr) = once(&manager.url(), &volume.path(), &["--keep", "0", "--keep-for", "0s"]);
        assert_eq!(code, 0, "step {step}: {stderr}");
        assert_eq!(volume.tree(), manager.site().files, "step {step}");
        assert_eq!(volume.staging(), [] as [&str; 0], "step {step}");
        if survived {
            return step - 1;
        }
        step += 1;
    }
}

/// Two changes under one process: after the first it copies the release, and the second begins with the copy.
fn kill_with_a_spare() -> u32 {
    let trees = [A, B, C].map(expected);
    let mut step = 1;
    loop {
        let (manager, volume) = (ContentManager::start(A), Volume::new());
        assert_eq!(once(&manager.url(), &volume.path(), &[]).0, 0);
        let mut command = Command::new(BINARY);
        command.args(["--source", &manager.url(), "--period", "1h", "--spare-from", "1", "--volume"]);
        command.arg(volume.path()).env("FILE_PULLER_KILL_AT", step.to_string());
        manager.site().files.clone_from(&trees[1]);
        let mut process = Process::start_command(command);
        let mut survived = publishes_or_dies(&mut process, 1);
        manager.site().files.clone_from(&trees[2]);
        if survived {
            // Read once the copy is made.
            process.signal(Signal::HUP);
            survived = publishes_or_dies(&mut process, 2);
        }
        drop(process);
        let seen = tree(&volume.join("current"));
        assert!(trees.contains(&seen), "step {step}: {seen:?}");
        let (code, stderr) = once(&manager.url(), &volume.path(), &["--keep", "9"]);
        assert_eq!(code, 0, "step {step}: {stderr}");
        assert_eq!(volume.tree(), trees[2], "step {step}");
        assert_eq!(volume.staging(), [] as [&str; 0], "step {step}");
        for release in volume.releases() {
            assert!(trees.contains(&tree(&volume.join("releases").join(release))), "step {step}");
        }
        if survived {
            return step - 1;
        }
        step += 1;
    }
}

/// Whether it has lived to publish so often.
fn publishes_or_dies(process: &mut Process, times: usize) -> bool {
    testkit::wait_until("it is published or killed", || {
        let events = process.events();
        process.has_ended() || events.iter().filter(|event| event["message"] == "published").count() >= times
    });
    !process.has_ended()
}

/// How many steps the transition has.
fn kill_at_each_step(transition: &Transition, form: Form) -> u32 {
    let old = transition.before.last().map(|files| expected(files));
    let new = expected(transition.now);
    // Everything may go the moment it is old, so that removing is among the steps, too.
    let keep = if transition.name == "old releases go" { "0" } else { "9" };
    let mut step = 1;
    loop {
        let at = format!("{}, step {step}", transition.name);
        let (manager, volume) = (ContentManager::start(&[]), Volume::new());
        form.serve(&manager);
        let url = form.url(&manager);
        for files in transition.before {
            manager.site().files = expected(files);
            let (code, stderr) = once(&url, &volume.path(), &["--keep", "9"]);
            assert_eq!(code, 0, "{at}: {stderr}");
        }
        manager.site().files.clone_from(&new);
        (transition.damage)(&volume);
        let survived = run_until_killed(&url, &volume, keep, step);
        if volume.current().is_some() {
            let seen = tree(&volume.join("current"));
            assert!(Some(&seen) == old.as_ref() || seen == new, "{at}: neither old nor new: {seen:?}");
        } else {
            assert!(old.is_none(), "{at}: the link is gone");
        }
        let (code, stderr) = once(&url, &volume.path(), &["--keep", "9"]);
        assert_eq!(code, 0, "{at}: {stderr}");
        assert_eq!(volume.tree(), new, "{at}");
        assert_eq!(volume.staging(), [] as [&str; 0], "{at}");
        // Each that is left is complete.
        assert!(!volume.releases().is_empty(), "{at}");
        if survived {
            return step - 1;
        }
        step += 1;
    }
}
