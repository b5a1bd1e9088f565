//! Which of what is there already is read of a file that was never seen: all of it, unless the user wants less of a volume that is full
//! of old logs.

use std::io;
use std::time::{Duration, SystemTime};

use lifecycle::escape::escaped_path;

use super::file::TailedFile;
use crate::loss::{LossLedger, SkipReason};

/// Where reading begins in a file that is there when the agent starts for the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum StartAt {
    /// At the first line
    Beginning,
    /// Behind the last line
    End,
}

#[derive(Debug)]
pub(super) struct Start {
    at: StartAt,
    ignore_older: Option<Duration>,
    /// No earlier run has left a checkpoint.
    is_first: bool,
    /// All files that were there when the agent started are known.
    is_over: bool,
}

impl Start {
    pub(super) fn new(at: StartAt, ignore_older: Option<Duration>, is_first: bool) -> Self {
        Self { at, ignore_older, is_first, is_over: false }
    }

    /// Files that are found from now on are new.
    pub(super) fn end(&mut self) {
        self.is_over = true;
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Skips what the user does not want to read of a file that was never seen, and was modified then.
    pub(super) fn skip_what_is_old(
        &self,
        file: &mut TailedFile,
        modified: Option<SystemTime>,
        ledger: &LossLedger,
    ) -> io::Result<()> {
        let Some(reason) = self.reason_to_skip(modified) else { return Ok(()) };
        if file.is_compressed()? {
            file.skip_compressed();
            return Ok(());
        }
        let bytes = file.skip_to_end()?;
        let name = escaped_path(file.path());
        tracing::info!(file = %name, bytes, reason = reason.as_str(), "skipped: what is added is read");
        ledger.record_skipped_by_all(reason, bytes);
        Ok(())
    }

    /// Why nothing is read of a file that was modified then but what is added to it; none where all is read.
    fn reason_to_skip(&self, modified: Option<SystemTime>) -> Option<SkipReason> {
        let age = modified.and_then(|modified| modified.elapsed().ok()).unwrap_or_default();
        if self.is_first && !self.is_over && self.at == StartAt::End {
            Some(SkipReason::StartAtEnd)
        } else if self.ignore_older.is_some_and(|limit| age > limit) {
            Some(SkipReason::IgnoreOlder)
        } else {
            None
        }
    }
}
