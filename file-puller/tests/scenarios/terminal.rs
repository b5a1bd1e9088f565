//! What somebody sees who runs the puller at a terminal: a bar while there is something to wait for, then what came of it.

use std::fs::{self, File};
use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use testkit::{Answer, eventually, wait_until};

use crate::content::ContentManager;
use crate::puller::{BINARY, Volume};

const WIDTH: u16 = 300;
const FILES: usize = 50;

/// A command whose stderr is a terminal.
struct AtTerminal {
    child: Child,
    written: Arc<Mutex<Vec<u8>>>,
}

impl AtTerminal {
    fn start(mut command: Command) -> Self {
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&controller).and_then(|()| unlockpt(&controller)).expect("it is ours");
        let name = ptsname(&controller, Vec::new()).expect("it has a name");
        let terminal =
            File::options().read(true).write(true).open(name.to_str().expect("UTF-8")).expect("it opens");
        let size = Winsize { ws_row: 24, ws_col: WIDTH, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&terminal, size).expect("it is a terminal");
        command.env("TERM", "xterm").stdin(Stdio::null()).stdout(Stdio::null()).stderr(terminal);
        let child = command.spawn().expect("it starts");
        // The command holds the terminal, and with it the other end of what is read here.
        drop(command);
        let written = Arc::<Mutex<Vec<u8>>>::default();
        let into = Arc::clone(&written);
        let mut controller = File::from(controller);
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            // At the end there is an error: nobody has the terminal open any more.
            while let Ok(read @ 1..) = controller.read(&mut buffer) {
                into.lock().expect("no holder panics").extend(&buffer[..read]);
            }
        });
        Self { child, written }
    }

    /// What the terminal shows, line by line.
    fn screen(&self) -> Vec<String> {
        screen(&String::from_utf8_lossy(&self.written.lock().expect("no holder panics")))
    }

    fn shows(&self, text: &str) {
        wait_until(text, || self.screen().iter().any(|line| line.contains(text)));
    }

    /// Its exit code, and what is on the screen when all is said.
    fn end(mut self) -> (Option<i32>, Vec<String>) {
        let status = eventually("it ends", || self.child.try_wait().expect("it can be waited for"));
        wait_until("all is read", || Arc::strong_count(&self.written) == 1);
        (status.code(), self.screen())
    }
}

/// As much of a terminal as a progress bar and a log need.
fn screen(written: &str) -> Vec<String> {
    let mut lines = vec![Vec::new()];
    let (mut row, mut column) = (0, 0);
    let mut characters = written.chars();
    while let Some(character) = characters.next() {
        match character {
            '\r' => column = 0,
            '\n' => row += 1,
            '\u{1b}' => {
                let mut parameter = String::new();
                let action = characters.by_ref().skip(1).find(|next| {
                    parameter.push(*next);
                    next.is_ascii_alphabetic()
                });
                parameter.pop();
                let count = parameter.parse().unwrap_or(1);
                match action {
                    Some('A') => row -= count.min(row),
                    Some('K') if parameter == "2" => lines[row].clear(),
                    Some('K') => lines[row].truncate(column),
                    Some('J') => {
                        lines[row].truncate(column);
                        lines.truncate(row + 1);
                    }
                    // Colours, and whether the cursor is seen.
                    Some('m' | 'h' | 'l') => {}
                    other => panic!("a terminal can do {other:?} {parameter:?}, and this one cannot"),
                }
            }
            _ => {
                // At the right edge, the next character begins a new line.
                if column == usize::from(WIDTH) {
                    (row, column) = (row + 1, 0);
                }
                lines.resize(lines.len().max(row + 1), Vec::new());
                let line: &mut Vec<char> = &mut lines[row];
                line.resize(line.len().max(column + 1), ' ');
                line[column] = character;
                column += 1;
            }
        }
        lines.resize(lines.len().max(row + 1), Vec::new());
    }
    let text = lines.iter().map(|line| line.iter().collect::<String>().trim_end().to_owned());
    text.filter(|line| !line.is_empty()).collect()
}

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
    let terminal = AtTerminal::start(command);
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
    let pid = i32::try_from(terminal.child.id()).ok().and_then(rustix::process::Pid::from_raw);
    rustix::process::kill_process(pid.expect("a process id"), Signal::TERM).expect("it runs");
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
    let terminal = AtTerminal::start(command);
    let (code, screen) = terminal.end();
    assert_eq!((code, screen), (Some(0), Vec::new()));
    assert!(fs::read_to_string(output).expect("it was written").contains("sidecar-manifest/1"));
}
