//! What a person reads: one short line an event on stderr; and on stdout the records that log-agent ships.
//!
//! On a terminal, records are counted instead of shown, in a last line that changes. No line is longer than the terminal is wide, except
//! those of the banner that name a long path or address, because people copy these. All else that the kubelet says fits into 80 columns. A pipe gets everything: bare records on stdout, whole lines without colours on stderr.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use lifecycle::Ignore as _;
use lifecycle::escape::escaped;
use lifecycle::logging::wants_colours;
use parking_lot::Mutex;
use rustix::termios::tcgetwinsize;

use crate::flags::Flags;
use crate::outlet::Outlet;

/// The width of a terminal that does not tell its own.
const COLUMNS: usize = 80;
/// Room for the longest name, `content-manager`.
const NAME: usize = 15;
/// What every count of records begins with, and the name that it stands behind.
const LOG_AGENT: &str = "log-agent";

/// A name at the beginning of a line, and its colour.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Speaker {
    pub(crate) name: &'static str,
    colour: u8,
}

impl Speaker {
    /// The Pod as a whole.
    pub(crate) const POD: Self = Self { name: "pod", colour: 34 };

    /// The container of this name. The ANSI colours are legible on dark and on light terminals.
    pub(crate) fn container(name: &'static str) -> Self {
        let colour = match name {
            LOG_AGENT => 36,
            "file-puller" => 33,
            "web-server" => 35,
            _ => 32,
        };
        Self { name, colour }
    }
}

/// Which lines of the containers are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Detail {
    /// What they do, shortened; not what every container says about its own beginning and end.
    Short,
    /// All that they say.
    Verbose,
}

/// What becomes of the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Records {
    /// On stdout.
    Printed,
    /// On stderr, in the last line.
    Counted,
    /// Both: on stdout, which is no terminal, and in the last line of the terminal that stderr is.
    PrintedAndCounted,
}

impl Records {
    /// They are counted where a person sees the counter, and printed wherever else they would be lost.
    fn new(style: Style, stdout: Stdout, flags: &Flags) -> Self {
        match (style, stdout) {
            (Style::Plain, _) => Self::Printed,
            (Style::Terminal { .. }, Stdout::Other) => Self::PrintedAndCounted,
            (Style::Terminal { .. }, Stdout::Terminal) if flags.records => Self::Printed,
            (Style::Terminal { .. }, Stdout::Terminal) => Self::Counted,
        }
    }
}

/// Where records on stdout go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stdout {
    Terminal,
    /// A pipe, a file, or nowhere.
    Other,
}

/// How lines on stderr look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    /// A pipe or a file: whole lines.
    Plain,
    /// A terminal, without colours where the person wants none (<https://no-color.org>).
    Terminal { coloured: bool },
}

/// The two streams of this process, for all containers together.
#[derive(Debug)]
pub(crate) struct Terminal {
    start: Instant,
    style: Style,
    records: Records,
    pub(crate) detail: Detail,
    counter: Mutex<Counter>,
    stderr: Outlet,
}

/// The last line of the terminal, which changes.
#[derive(Debug, Default)]
struct Counter {
    shipped: u64,
    drawn: bool,
}

impl Terminal {
    pub(crate) fn new(flags: &Flags) -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
        let style = if std::io::stderr().is_terminal() && !dumb {
            Style::Terminal { coloured: wants_colours() }
        } else {
            Style::Plain
        };
        let stdout = if std::io::stdout().is_terminal() { Stdout::Terminal } else { Stdout::Other };
        let records = Records::new(style, stdout, flags);
        let detail = if flags.verbose { Detail::Verbose } else { Detail::Short };
        let stderr = Outlet::new(std::io::stderr());
        Self { start: Instant::now(), style, records, detail, counter: Mutex::default(), stderr }
    }

    /// One line: when, who, what.
    pub(crate) fn say(&self, speaker: Speaker, text: &str) {
        self.print(&self.line(self.start.elapsed(), speaker, text, columns()));
    }

    /// Lines without time and name, as they are: the banner. It names paths and addresses, which are of use only whole.
    pub(crate) fn block(&self, lines: &[String]) {
        self.print(&lines.iter().flat_map(|line| [line, "\n"]).collect::<String>());
    }

    /// Passes on records that log-agent has shipped: whole lines.
    pub(crate) fn ship(&self, records: &[u8]) {
        // No counter where nothing comes this way: records may go to another sink than stdout.
        if records.is_empty() {
            return;
        }
        if self.records != Records::Counted {
            let mut out = std::io::stdout().lock();
            // A closed pipe is no reason to stop a Pod.
            out.write_all(records).and_then(|()| out.flush()).ignore();
        }
        let mut counter = self.counter.lock();
        counter.shipped += records.iter().map(|byte| u64::from(*byte == b'\n')).sum::<u64>();
        if self.records != Records::Printed {
            self.stderr.write(self.redrawn(&mut counter));
        }
    }

    /// Leaves the counter where it is, for good.
    pub(crate) fn finish(&self) {
        let mut counter = self.counter.lock();
        if std::mem::take(&mut counter.drawn) {
            self.stderr.write("\n".to_owned());
        }
    }

    /// Waits until all that was said is written, but not for a terminal that takes nothing.
    pub(crate) fn flush(&self) {
        self.stderr.flush();
    }

    fn print(&self, lines: &str) {
        let mut counter = self.counter.lock();
        let erase = if counter.drawn { "\r\x1b[K" } else { "" };
        let again = if counter.drawn { self.redrawn(&mut counter) } else { String::new() };
        self.stderr.write(format!("{erase}{lines}{again}"));
    }

    fn redrawn(&self, counter: &mut Counter) -> String {
        counter.drawn = true;
        let lines = if counter.shipped == 1 { "line" } else { "lines" };
        let text = format!("shipped {} {lines}", counter.shipped);
        let line = self.line(self.start.elapsed(), Speaker::container(LOG_AGENT), &text, columns());
        format!("\r\x1b[K{}", line.trim_end_matches('\n'))
    }

    fn line(&self, at: Duration, speaker: Speaker, text: &str, columns: usize) -> String {
        let name = speaker.name;
        // SECURITY: a container repeats what clients and servers send, and that may hold escape sequences.
        let head = format!("{:6.1}s  {name:NAME$}", at.as_secs_f64());
        let line = self.cut(&format!("{head}  {}", escaped(text)), columns);
        match (self.style, line.strip_prefix(&head)) {
            (Style::Terminal { coloured: true }, Some(rest)) => {
                format!("\x1b[{}m{head}\x1b[0m{rest}\n", speaker.colour)
            }
            _ => format!("{line}\n"),
        }
    }

    fn cut(&self, line: &str, columns: usize) -> String {
        match self.style {
            Style::Terminal { .. } if self.detail == Detail::Short => cut(line, columns),
            _ => line.to_owned(),
        }
    }
}

/// The width that lines are cut at, asked for at each line: a person may change it.
fn columns() -> usize {
    known(tcgetwinsize(std::io::stderr()).map_or(0, |size| size.ws_col))
}

/// A terminal that does not know its width says 0.
fn known(told: u16) -> usize {
    if told == 0 { COLUMNS } else { usize::from(told) }
}

/// The line, or its beginning and an ellipsis.
fn cut(line: &str, columns: usize) -> String {
    match line.char_indices().nth(columns) {
        None => line.to_owned(),
        Some(_) => line.chars().take(columns - 1).chain(['…']).collect(),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn terminal(style: Style, detail: Detail) -> Terminal {
        Terminal {
            start: Instant::now(),
            style,
            records: Records::Counted,
            detail,
            counter: Mutex::default(),
            stderr: Outlet::new(std::io::sink()),
        }
    }

    #[test]
    fn names_and_times_line_up_and_no_line_is_wider_than_the_terminal() {
        let at = Duration::from_millis(1_260);
        let plain = terminal(Style::Plain, Detail::Short);
        let line = plain.line(at, Speaker::container("web-server"), "started, pid 12", 40);
        assert_eq!(line, "   1.3s  web-server       started, pid 12\n");

        let style = Style::Terminal { coloured: false };
        let long = terminal(style, Detail::Short).line(at, Speaker::POD, &"é".repeat(50), 40);
        assert_eq!(long.trim_end().chars().count(), 40);
        assert!(long.ends_with("é…\n"), "{long}");
        let verbose = terminal(style, Detail::Verbose).line(at, Speaker::POD, &"é".repeat(50), 40);
        assert!(verbose.ends_with("éé\n"), "{verbose}");
    }

    #[test]
    fn a_wide_terminal_is_used_and_an_unknown_one_has_80_columns() {
        let text = "published release=0123456789abcdef files=1000 fetched=1000 took=1.234s from=manifest";
        let line = |told| {
            let terminal = terminal(Style::Terminal { coloured: false }, Detail::Short);
            terminal.line(Duration::ZERO, Speaker::container("file-puller"), text, known(told))
        };
        assert!(line(120).ends_with(&format!("  {text}\n")), "{}", line(120));
        assert_eq!(line(0).trim_end().chars().count(), 80);
        assert_eq!(line(0), line(80));
    }

    #[test]
    fn colours_go_around_time_and_name_and_nothing_escapes() {
        let style = Style::Terminal { coloured: true };
        let line = terminal(style, Detail::Short).line(Duration::ZERO, Speaker::POD, "a\x1b[2Jb", 80);
        assert_eq!(line, "\x1b[34m   0.0s  pod            \x1b[0m  a\\u{1b}[2Jb\n");
    }

    #[test]
    fn the_counter_is_erased_before_a_line_and_drawn_again_after_it() {
        let terminal = terminal(Style::Terminal { coloured: false }, Detail::Short);
        let mut counter = Counter { shipped: 1, drawn: false };
        assert!(terminal.redrawn(&mut counter).ends_with("log-agent        shipped 1 line"));
        assert!(counter.drawn);
    }

    #[test]
    fn records_are_printed_wherever_no_counter_is_seen() {
        let seen = Style::Terminal { coloured: false };
        let (counted, printed) = (["kubelet"].as_slice(), ["kubelet", "--records"].as_slice());
        for (style, stdout, flags, records) in [
            (seen, Stdout::Terminal, counted, Records::Counted),
            (seen, Stdout::Terminal, printed, Records::Printed),
            (seen, Stdout::Other, counted, Records::PrintedAndCounted),
            (Style::Plain, Stdout::Terminal, counted, Records::Printed),
            (Style::Plain, Stdout::Other, counted, Records::Printed),
        ] {
            assert_eq!(Records::new(style, stdout, &Flags::parse_from(flags)), records);
        }
    }
}
