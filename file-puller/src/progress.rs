//! How far a long piece of work is: a bar for a user at a terminal, else a line in the log now and then.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::content::ReleaseId;

/// How often the log says how far a sync is.
const PERIOD: Duration = Duration::from_secs(2);

/// Who is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Audience {
    /// The readers of a container's log.
    Log,
    /// The user who started the command at a terminal; else the log.
    Terminal,
}

/// One piece of work that is under way.
#[derive(Debug)]
pub(crate) struct Progress {
    release: Option<ReleaseId>,
    total: usize,
    done: usize,
    said: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Begins with so many files ahead; `release` is for the log.
    pub(crate) fn begin(audience: Audience, total: usize, release: Option<ReleaseId>) -> Self {
        let bar = match audience {
            Audience::Log => None,
            // Hidden means that stderr is no terminal.
            Audience::Terminal => Some(bar(total)).filter(|bar| !bar.is_hidden()),
        };
        Self { release, total, done: 0, said: Instant::now(), bar }
    }

    /// Notes that another file was fetched.
    pub(crate) fn fetched(&mut self) {
        self.done += 1;
        if let Some(bar) = &self.bar {
            bar.inc(1);
        } else if self.said.elapsed() >= PERIOD {
            let release = self.release.as_ref().map(tracing::field::display);
            tracing::info!(release, fetched = self.done, of = self.total, "staging");
            self.said = Instant::now();
        }
    }

    /// Notes that another file was read, of an unknown number.
    pub(crate) fn read(&mut self) {
        self.done += 1;
        if let Some(bar) = &self.bar {
            bar.inc_length(1);
            bar.inc(1);
        }
    }
}

impl Drop for Progress {
    /// The terminal then shows what the command has to say, and not how it came to that.
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar(total: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {pos} of {len} files, {elapsed}, {per_sec}");
    let bar = ProgressBar::new(total as u64);
    // The template is a constant, and one that does not parse would only leave the default.
    let bar = style.map_or_else(|_| bar.clone(), |style| bar.clone().with_style(style));
    // It draws no more often than the eye can follow. Without this, the last few files before a pause would not show.
    bar.enable_steady_tick(Duration::from_millis(250));
    bar
}
