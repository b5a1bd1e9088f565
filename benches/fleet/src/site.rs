//! The directory that the content manager gives out.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

/// Bytes of a file: a small page.
const SIZE: usize = 4096;

/// A directory of so many files.
#[derive(Debug)]
pub(crate) struct Site {
    directory: TempDir,
    files: usize,
}

impl Site {
    /// A new site.
    pub(crate) fn new(files: usize) -> anyhow::Result<Self> {
        let site = Self { directory: tempfile::tempdir()?, files };
        for number in 0..files.div_ceil(100) {
            fs::create_dir(site.path().join(number.to_string()))?;
        }
        site.rewrite("first")?;
        Ok(site)
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Changes one file.
    pub(crate) fn edit(&self, text: &str) -> anyhow::Result<()> {
        self.put(0, text)
    }

    /// Changes every file.
    pub(crate) fn rewrite(&self, text: &str) -> anyhow::Result<()> {
        (0..self.files).try_for_each(|number| self.put(number, text))
    }

    /// The path of a file beneath the site.
    pub(crate) fn name(number: usize) -> String {
        format!("{}/{number}.html", number / 100)
    }

    /// As an editor or a build does it: whole, then renamed.
    fn put(&self, number: usize, text: &str) -> anyhow::Result<()> {
        let (path, temporary) = (self.path().join(Self::name(number)), self.path().join(".new"));
        let mut page = format!("{text} {number} ").into_bytes();
        page.resize(SIZE.max(page.len()), b'.');
        fs::write(&temporary, page)?;
        Ok(fs::rename(temporary, path)?)
    }
}
