//! What survives a restart: which files there are and what each sink has confirmed of them.

mod document;
mod sent_log;
mod state_dir;
mod unclaimed;
mod writer;

pub(crate) use document::{FileEntry, PathText};
pub(crate) use sent_log::{Sent, SentLog, SentWriter, note_sent};
pub(crate) use state_dir::StateDir;
pub(crate) use unclaimed::UnclaimedEntries;
pub(crate) use writer::CheckpointWriter;
