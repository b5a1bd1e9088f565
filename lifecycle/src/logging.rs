//! Diagnostics: `tracing` events to stderr, as text for people or one JSON object a line for collectors.
//!
//! stdout is left alone: it belongs to log-agent's `stdout:` sink, and in a Pod whatever is printed there is data.

use std::io::{self, IsTerminal as _, Write};

use crate::{Ignore as _, escape};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// How diagnostics are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Which events are written: a level, or levels by module (`info,file_puller::fetch=debug`).
#[derive(Debug, Clone)]
pub struct LogLevel(Targets);

impl std::str::FromStr for LogLevel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // A lone word that is no level would be read as a module name, and silence everything else.
        let lone = !text.contains(['=', ',']);
        if lone && text.parse::<LevelFilter>().is_err() {
            return Err("it is none of off, error, warn, info, debug, trace".to_owned());
        }
        text.parse().map(Self).map_err(|error| format!("{error}; write it like info or info,hyper=debug"))
    }
}

/// Starts logging for the whole process. A second call changes nothing.
pub fn start(format: LogFormat, level: &LogLevel) {
    let stderr = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(format == LogFormat::Text && io::stderr().is_terminal() && wants_colours());
    let registry = tracing_subscriber::registry().with(level.0.clone());
    // Fails only when a subscriber is already set, which then is the one that a test chose.
    match format {
        LogFormat::Text => registry.with(stderr).try_init(),
        LogFormat::Json => {
            let json = stderr.json().flatten_event(true);
            registry.with(json.with_writer(|| JsonLines(io::stderr()))).try_init()
        }
    }
    .ignore();
}

/// Where lines of JSON are written, each at once.
///
/// SECURITY: an event may hold a name or an error from outside ([`escape`]).
struct JsonLines<W>(W);

impl<W: Write> Write for JsonLines<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.write_all(escape::json(&String::from_utf8_lossy(line)).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Whether a person at a terminal wants colours: any value of `NO_COLOR` but an empty one says no (<https://no-color.org>).
pub fn wants_colours() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_or_levels_by_module() {
        assert!("info".parse::<LogLevel>().is_ok());
        assert!("info,hyper=debug".parse::<LogLevel>().is_ok());
        assert!("loud".parse::<LogLevel>().is_err());
    }

    #[test]
    fn a_line_of_json_shows_no_control_character() {
        let mut written = Vec::new();
        JsonLines(&mut written).write_all("{\"path\":\"\u{9b}2J\u{202e}gpj\u{2028}\"}\n".as_bytes()).unwrap();
        assert_eq!(written, b"{\"path\":\"\\u009b2J\\u202egpj\\u2028\"}\n");
    }
}
