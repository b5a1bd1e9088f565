//! What a content manager may ask of this Pod at most.

use lifecycle::units;

use super::ReleasePath;

/// The largest release that is accepted. A manifest beyond any of these is refused whole.
#[derive(Debug, Clone, Copy, clap::Args)]
#[command(next_help_heading = "Limits")]
pub(crate) struct Limits {
    /// Largest manifest
    #[arg(long = "max-manifest-size", value_name = "SIZE", default_value = "32MiB", value_parser = units::size)]
    pub(crate) manifest: u64,

    /// Most files in a release
    #[arg(long = "max-files", value_name = "N", default_value = "100000")]
    pub(crate) files: usize,

    /// Most directories in a release; each takes an inode and, on most file systems, a block
    #[arg(long = "max-directories", value_name = "N", default_value = "100000")]
    pub(crate) directories: usize,

    /// Largest file
    #[arg(long = "max-file-size", value_name = "SIZE", default_value = "1GiB", value_parser = units::size)]
    pub(crate) file_size: u64,

    /// Largest release, all its files together
    #[arg(long = "max-size", value_name = "SIZE", default_value = "10GiB", value_parser = units::size)]
    pub(crate) size: u64,

    /// Space that a new release has to leave free on the volume
    #[arg(long = "min-free", value_name = "SIZE", default_value = "64MiB", value_parser = units::size)]
    pub(crate) min_free: u64,
}

impl Limits {
    /// Nothing is too much.
    pub(crate) const NONE: Self = Self {
        manifest: u64::MAX,
        files: usize::MAX,
        directories: usize::MAX,
        file_size: u64::MAX,
        size: u64::MAX,
        min_free: 0,
    };

    /// Refuses one more file than so many, where that is too many.
    pub(crate) fn check_one_more(&self, files: usize) -> Result<(), String> {
        let limit = self.files;
        if files < limit { Ok(()) } else { Err(format!("it has more than --max-files {limit} files")) }
    }

    /// Refuses a file that is too large.
    pub(crate) fn check_size(&self, path: &ReleasePath, size: u64) -> Result<(), String> {
        let limit = self.file_size;
        if size <= limit {
            return Ok(());
        }
        Err(format!("{path} has {size} bytes, more than --max-file-size {limit}"))
    }
}
