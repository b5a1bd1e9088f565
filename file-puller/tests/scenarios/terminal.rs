//! What somebody sees who runs the puller at a terminal: a bar while there is something to wait for, then what came of it.

use std::fs;
use std::process::Command;
use std::sync::{Mutex, mpsc};

use rustix::process::Signal;
use testkit::Answer;
use testkit::terminal::{AtTerminal, Stdout};

use crate::content::ContentManager;
use crate::puller::{BINARY, Volume};

const WIDTH: u16 = 300;
const FILES: usize = 50;

/// `--once` of a site whose last file comes when the test lets it, as `last` says.
fn pulling(last: fn() -> Option<Answer>) -> (ContentManager, Volume, AtTerminal, mpsc::Sender<()>) {
    let (manager, volume) = (ContentManager::start(&[]), Volume::new());
    for file in 0..FILES {
        manager.put(&format!("d/{file:02}"), file.to_string());
    }
    let (go, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    manager.fault(move |request, _| {
        let is_last = request.target().ends_with(&format!("/{}", FILES - 1));
        is_last.then(|| gate.lock().expect("no holder panics").recv()).and_then(|_| last())
    });
    let mut command = Command::new(BINARY);
    command.args(["--once", "--source", &manager.url(), "--volume"]).arg(volume.path());
    let terminal = AtTerminal::start(command, WIDTH, Stdout::Null);
    terminal.shows(&format!("{} of {FILES} files", FILES - 1));
    (manager, volume, terminal, go)
}

#[test]
fn a_bar_makes_way_for_what_came_of_it() {
    let (manager, volume, terminal, go) = pulling(|| None);
    drop(go);
    let (code, screen) = terminal.end();
    assert_eq!(code, Some(0), "{screen:#?}");
    assert_eq!(volume.tree(), manager.site().files);
    let last = screen.last().expect("something is said");
    assert!(
        last.contains(" INFO ") && last.contains("published") && last.contains("files=50"),
        "{screen:#?}"
    );
    assert!(screen.iter().all(|line| !line.contains("of 50 files")), "no bar is left: {screen:#?}");
}

#[test]
fn a_bar_makes_way_for_a_failure() {
    let (manager, _volume, terminal, go) = pulling(|| Some(Answer::new(503, "")));
    drop(go);
    let (code, screen) = terminal.end();
    let url = manager.upstream.url("/site/d/49");
    let last = format!("file-puller: cannot fetch {url}: it answers 503 Service Unavailable");
    assert_eq!((code, screen.last()), (Some(69), Some(&last)), "{screen:#?}");
    assert!(screen.iter().all(|line| !line.contains("of 50 files")), "no bar is left: {screen:#?}");
}

/// A line of the log that comes while the bar is there gets a line of its own.
#[test]
fn a_bar_makes_way_for_a_signal() {
    let (_manager, _volume, terminal, go) = pulling(|| None);
    terminal.signal(Signal::TERM);
    let (code, screen) = terminal.end();
    let last = "file-puller: stopped before the sync had ended; the next start sweeps up".to_owned();
    assert_eq!((code, screen.last()), (Some(69), Some(&last)), "{screen:#?}");
    let draining = screen.iter().find(|line| line.contains("draining")).expect("it is said");
    assert!(!draining.contains("of 50 files"), "{screen:#?}");
    drop(go);
}

#[test]
fn a_manifest_shows_its_progress_and_leaves_nothing() {
    let volume = Volume::new();
    for file in 0..FILES {
        fs::write(volume.join(&format!("{file}")), vec![1; 100_000]).expect("a file");
    }
    let output = volume.above().join("manifest.json");
    let mut command = Command::new(BINARY);
    command.arg("manifest").arg(volume.path()).arg("--output").arg(&output);
    let terminal = AtTerminal::start(command, WIDTH, Stdout::Null);
    let (code, screen) = terminal.end();
    assert_eq!((code, screen), (Some(0), Vec::new()));
    assert!(fs::read_to_string(output).expect("it was written").contains("sidecar-manifest/1"));
}
