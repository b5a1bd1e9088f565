//! Every line of every container, behind its container's name: stdout stays stdout and stderr stays stderr, so that
//! what the log agent ships can be piped on while the diagnostics are read.

use std::io::{IsTerminal as _, Write as _};

use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};

/// ANSI colours that are legible on dark and on light terminals.
const COLOURS: [u8; 5] = [36, 33, 35, 32, 34];

/// Which of this process's streams a line goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    /// What a container produces.
    Stdout,
    /// What a container says about itself.
    Stderr,
}

/// What separates a container's name from its line.
pub(crate) const SEPARATOR: &str = " | ";

/// One container's prefix.
#[derive(Debug, Clone)]
pub(crate) struct Prefix {
    name: &'static str,
    width: usize,
    colour: u8,
}

impl Prefix {
    /// The prefix of the container at `position` in its Pod, with names padded to `width`.
    pub(crate) fn new(name: &'static str, position: usize, width: usize) -> Self {
        Self { name, width, colour: COLOURS[position % COLOURS.len()] }
    }

    /// Repeats what `source` says until it ends.
    pub(crate) async fn repeat(self, source: impl AsyncRead + Unpin, stream: Stream) {
        let mut reader = BufReader::new(source);
        let mut line = Vec::new();
        // A pipe that breaks has nothing more to say: the same as its end.
        while reader.read_until(b'\n', &mut line).await.is_ok_and(|read| read > 0) {
            self.say(stream, String::from_utf8_lossy(&line).trim_end());
            line.clear();
        }
    }

    /// Prints one line. A closed terminal is no reason to stop a Pod, so a failed write is let go.
    pub(crate) fn say(&self, stream: Stream, line: &str) {
        match stream {
            Stream::Stdout => {
                let mut out = std::io::stdout().lock();
                let text = self.render(line, coloured(out.is_terminal()));
                drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
            }
            Stream::Stderr => {
                let mut out = std::io::stderr().lock();
                let text = self.render(line, coloured(out.is_terminal()));
                drop(out.write_all(text.as_bytes()));
            }
        }
    }

    fn render(&self, line: &str, colour: Colour) -> String {
        let Self { name, width, .. } = self;
        match colour {
            Colour::Plain => format!("{name:width$}{SEPARATOR}{line}\n"),
            Colour::Ansi => format!("\x1b[{}m{name:width$}{SEPARATOR}\x1b[0m{line}\n", self.colour),
        }
    }
}

#[derive(Clone, Copy)]
enum Colour {
    Plain,
    Ansi,
}

/// Colour on a terminal, unless the person asked for none (<https://no-color.org>).
fn coloured(terminal: bool) -> Colour {
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if terminal && !unwanted { Colour::Ansi } else { Colour::Plain }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_line_up() {
        let prefix = Prefix::new("log-agent", 0, 11);
        assert_eq!(prefix.render("hello", Colour::Plain), "log-agent   | hello\n");
        assert!(prefix.render("hello", Colour::Ansi).starts_with("\x1b[36mlog-agent   | \x1b[0m"));
    }
}
