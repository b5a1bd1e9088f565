//! The server that answers for the page: the one container that is seen from inside.

use std::any::Any;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use lifecycle::Container;
use lifecycle::admin::Probed;

/// web-server, as the page needs it.
pub trait LocalServer: std::fmt::Debug + Send + Sync + 'static {
    /// Its name and version.
    fn container(&self) -> Container;

    /// The port of its admin server.
    fn admin_port(&self) -> u16;

    /// Whether it can do its job.
    ///
    /// # Errors
    /// The reason, for people, where it cannot.
    fn readiness(&self) -> Result<(), String>;

    /// What it has counted since it was started.
    fn counters(&self) -> Counters;

    /// The file that it writes its access log to; none where the log goes elsewhere.
    fn access_log(&self) -> Option<PathBuf>;

    /// How often its probes were asked.
    fn probed(&self) -> Probed;

    /// The release that it serves; none before the first, or where it serves a plain directory.
    fn served(&self) -> Option<Served>;

    /// The files of the release that it serves, and their digests; none where it has no memory for them. May block for as long as
    /// it takes to write them down.
    fn listing(&self) -> Option<Listing>;
}

/// Counts since the server was started.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counters {
    /// Lines of the access log that were written.
    pub lines_written: u64,
    /// Lines that could not be written.
    pub lines_dropped: u64,
    /// Answers by the first digit of their status, from 1xx to 5xx.
    pub answers: [u64; 5],
}

/// A release that is served.
#[derive(Debug, Clone)]
pub struct Served {
    /// Its id.
    pub release: String,
    /// When its link was made.
    pub published: SystemTime,
    /// How many files it has.
    pub files: usize,
}

/// The files of a release.
#[derive(Debug, Clone)]
pub struct Listing {
    /// Its id.
    pub release: String,
    /// The SHA-256 of each file, by its path.
    pub files: HashMap<String, [u8; 32]>,
    /// What the server's memory is taken with, for as long as there is a listing.
    pub memory: Arc<dyn Any + Send + Sync>,
}
