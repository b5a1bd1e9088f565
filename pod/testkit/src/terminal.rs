//! A command at a terminal, and what a person would see there.

use std::fs::File;
use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::wait::{eventually, wait_until};

/// Where a command's stdout goes. Its stderr is always the terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stdout {
    /// Nowhere.
    Null,
    /// To the terminal, too.
    Terminal,
}

/// A running command, killed when the test lets go of it.
#[derive(Debug)]
pub struct AtTerminal {
    child: Child,
    columns: u16,
    written: Arc<Mutex<Vec<u8>>>,
}

impl AtTerminal {
    /// Starts a command at a terminal that has so many columns.
    pub fn start(mut command: Command, columns: u16, stdout: Stdout) -> Self {
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&controller).and_then(|()| unlockpt(&controller)).expect("it is ours");
        let name = ptsname(&controller, Vec::new()).expect("it has a name");
        let terminal =
            File::options().read(true).write(true).open(name.to_str().expect("UTF-8")).expect("it opens");
        let size = Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&terminal, size).expect("it is a terminal");
        command.stdout(match stdout {
            Stdout::Null => Stdio::null(),
            Stdout::Terminal => terminal.try_clone().expect("a descriptor").into(),
        });
        command.env("TERM", "xterm").stdin(Stdio::null()).stderr(terminal);
        let child = command.spawn().expect("it starts");
        // The command holds the terminal, and with it the other end of what is read here.
        drop(command);
        let written = Arc::<Mutex<Vec<u8>>>::default();
        let into = Arc::clone(&written);
        let mut controller = File::from(controller);
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            // Reading fails once no process has the terminal open.
            while let Ok(read @ 1..) = controller.read(&mut buffer) {
                into.lock().extend(&buffer[..read]);
            }
        });
        Self { child, columns, written }
    }

    /// What the terminal shows, line by line.
    pub fn screen(&self) -> Vec<String> {
        screen(&String::from_utf8_lossy(&self.written.lock()), usize::from(self.columns))
    }

    /// Whether anything on it has a colour or another rendition.
    pub fn is_coloured(&self) -> bool {
        let written = String::from_utf8_lossy(&self.written.lock()).into_owned();
        let digits = |letter: char| letter.is_ascii_digit() || letter == ';';
        written.split("\x1b[").skip(1).any(|rest| rest.trim_start_matches(digits).starts_with('m'))
    }

    /// Waits until a line has this text.
    #[track_caller]
    pub fn shows(&self, text: &str) {
        wait_until(text, || self.screen().iter().any(|line| line.contains(text)));
    }

    /// Sends the command a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a process id"), signal).expect("it runs");
    }

    /// Its exit code, and what is on the screen when all is said.
    pub fn end(mut self) -> (Option<i32>, Vec<String>) {
        let status = eventually("it ends", || self.child.try_wait().expect("it can be waited for"));
        wait_until("all is read", || Arc::strong_count(&self.written) == 1);
        (status.code(), self.screen())
    }
}

impl Drop for AtTerminal {
    fn drop(&mut self) {
        // This may be a panic's way out, so nothing here may panic.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// As much of a terminal as a progress bar and a log need.
fn screen(written: &str, columns: usize) -> Vec<String> {
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
                    // The rest of it has not come yet.
                    None => break,
                    // Colours, and whether the cursor is seen.
                    Some('m' | 'h' | 'l') => {}
                    other => panic!("a terminal can do {other:?} {parameter:?}, and this one cannot"),
                }
            }
            _ => {
                // At the right edge, the next character begins a new line.
                if column == columns {
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
