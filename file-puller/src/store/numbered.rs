//! The directory of the files that have arrived, `unpacked/` in the private directory: each has a number for a name.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;

use lifecycle::Ignore as _;
use rustix::fs::{AtFlags, Mode, OFlags};

use super::backlog::Backlog;
use super::create::{PlainFiles, make_directory, open_directory, open_file};
use super::private::{Private, UNPACKED};
use super::sys;
use super::volume::{Context as _, Volume, VolumeError};
use crate::content::FileMode;
use crate::crash_point::crash_point;

/// Files to a directory. ext4 looks through a block of names for each that is made or moved, and short names are many to a block.
const SHARE: usize = 64;

/// What a file is called: which one it is of those that one writer makes, and which writer that is. Each writer has directories of its
/// own, because the kernel lets one thread at a time change a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Name {
    writer: usize,
    count: usize,
}

/// The directory.
#[derive(Debug)]
pub(super) struct NumberedFiles {
    private: Arc<Private>,
    directory: OwnedFd,
    directory_mode: Mode,
    plain_files: PlainFiles,
    backlog: Arc<Backlog>,
}

impl Name {
    /// The first name of a writer.
    pub(super) fn first(writer: usize) -> Self {
        Self { writer, count: 0 }
    }

    /// Takes the name, and leaves the next one.
    pub(super) fn take(&mut self) -> Self {
        let name = *self;
        self.count += 1;
        name
    }

    fn directory(self) -> String {
        format!("{}-{}", self.writer, self.count / SHARE)
    }

    /// Where the file is in the directory.
    pub(super) fn path(self) -> String {
        format!("{}/{}", self.directory(), self.count % SHARE)
    }
}

impl NumberedFiles {
    /// Makes the directory, empty.
    pub(super) fn begin(volume: &Volume) -> Result<Self, VolumeError> {
        let private = volume.private()?;
        let making = || format!("make {}/{UNPACKED}", private.path().display());
        private.take_away(UNPACKED).context(making)?;
        let directory_mode = volume.directory_mode();
        make_directory(private.directory(), UNPACKED, directory_mode).context(making)?;
        crash_point();
        let directory = open_directory(private.directory(), UNPACKED).context(making)?;
        let (plain_files, backlog) = (PlainFiles::default(), Arc::clone(volume.backlog()));
        Ok(Self { private, directory, directory_mode, plain_files, backlog })
    }

    /// A handle on it.
    pub(super) fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Makes a file.
    pub(super) fn create(&self, name: Name) -> Result<File, VolumeError> {
        if name.count.is_multiple_of(SHARE) {
            make_directory(&self.directory, &name.directory(), self.directory_mode)
                .context(|| self.naming("make the directory of", name))?;
            self.backlog.made_directory();
        }
        let file = self.plain_files.create(&self.directory, &name.path());
        let file = file.context(|| self.naming("make", name))?;
        self.backlog.made(&name.path());
        crash_point();
        Ok(file.into())
    }

    /// Adds bytes to a file that was made.
    pub(super) fn append(&self, name: Name, file: &mut File, bytes: &[u8]) -> Result<(), VolumeError> {
        file.write_all(bytes).context(|| self.naming("write", name))?;
        crash_point();
        Ok(())
    }

    /// Opens a file to read what was written.
    pub(super) fn open(&self, name: Name) -> Result<File, VolumeError> {
        open_file(&self.directory, &*name.path()).context(|| self.naming("open", name))
    }

    /// A file for bytes that are no content, to write and to read.
    pub(super) fn scratch(&self, name: &str) -> Result<File, VolumeError> {
        let new = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.directory, name, new, Mode::from_raw_mode(0o600));
        let file = file.context(|| self.naming_path("make", name))?;
        crash_point();
        Ok(file.into())
    }

    /// Removes such a file, which takes space until all handles on it are closed.
    pub(super) fn remove_scratch(&self, name: &str) {
        // It goes with the directory otherwise.
        rustix::fs::unlinkat(&self.directory, name, AtFlags::empty()).ignore();
        crash_point();
    }

    /// Gives a file its mode, which most have from the start.
    pub(super) fn set_mode(&self, name: Name, mode: FileMode) -> Result<(), VolumeError> {
        if self.plain_files.have(mode) {
            return Ok(());
        }
        let set = sys::chmod(&self.directory, name.path(), mode.as_mode());
        set.context(|| self.naming("set the mode of", name))
    }

    /// What is done with a file, for messages.
    pub(super) fn naming(&self, verb: &str, name: Name) -> String {
        self.naming_path(verb, &name.path())
    }

    fn naming_path(&self, verb: &str, path: &str) -> String {
        format!("{verb} {}/{UNPACKED}/{path}", self.private.path().display())
    }
}
