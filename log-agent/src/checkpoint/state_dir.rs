//! The directory that holds the checkpoint.
//!
//! Two slots are written in turn, each as a whole: a temporary file, synced, renamed over the slot, its directory
//! synced. A crash at any instant leaves the other slot; a slot that is torn or damaged is recognised by its checksum,
//! said, and passed over. An older checkpoint, or none, means that lines are sent again, never that one is skipped.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use lifecycle::exit::{Exit, Failure, OrExit as _};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::document::{Document, FileEntry};
use crate::directory;
use crate::identity::{Instance, random};

const INSTANCE: &str = "instance";
const INSTANCE_TEMPORARY: &str = "instance.tmp";
const LOCK: &str = "lock";
const SLOTS: [&str; 2] = ["checkpoint.0.json", "checkpoint.1.json"];
const SLOT_TEMPORARY: &str = "checkpoint.tmp";

/// The directory that holds the checkpoint, locked for as long as this value lives.
#[derive(Debug)]
pub(crate) struct StateDir {
    path: PathBuf,
    generation: u64,
    instance: Instance,
    is_new: bool,
    /// Held for its lock.
    _lock: File,
}

impl StateDir {
    /// What is written there from here.
    pub(crate) const FILES: [&str; 6] =
        [SLOTS[0], SLOTS[1], SLOT_TEMPORARY, INSTANCE, INSTANCE_TEMPORARY, LOCK];

    /// Makes the directory where it is missing, and takes its lock.
    ///
    /// # Errors
    /// 74 where it cannot be made or written, 69 where another agent holds it.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let cannot = |what| {
            let (shown, cure) = (path.display(), cure(path));
            format!("cannot {what} the state directory {shown}; {cure}choose another with --state-dir")
        };
        fs::create_dir_all(path).with_context(|| cannot("make")).or_exit(Exit::Io)?;
        let lock = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join(LOCK))
            .with_context(|| cannot("write to"))
            .or_exit(Exit::Io)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(Failure::new(
                    Exit::Unavailable,
                    format!(
                        "the state directory {} is held by another log-agent; end that one, or give each its own --state-dir",
                        path.display()
                    ),
                ));
            }
            Err(error) if has_no_locks(error) => {
                tracing::warn!(state_dir = %path.display(), "the state directory has no locks: make sure that only one log-agent uses it");
            }
            Err(error) => return Err(error).with_context(|| cannot("lock")).or_exit(Exit::Io),
        }
        let is_new = !SLOTS.iter().any(|slot| path.join(slot).exists());
        let instance = instance(path);
        Ok(Self { path: path.to_owned(), generation: 0, instance, is_new, _lock: lock })
    }

    pub(crate) fn instance(&self) -> Instance {
        self.instance
    }

    /// Whether no checkpoint was ever written here.
    pub(crate) fn is_new(&self) -> bool {
        self.is_new
    }

    /// The newest checkpoint that can be trusted; nothing where there is none.
    pub(crate) fn load(&mut self) -> Vec<FileEntry> {
        let mut documents = Vec::new();
        for path in SLOTS.map(|slot| self.path.join(slot)) {
            match fs::read(&path).map(|bytes| Document::parse(&bytes)) {
                Ok(Ok(document)) => documents.push(document),
                Ok(Err(reason)) => tracing::warn!(
                    file = %path.display(),
                    reason,
                    "this checkpoint cannot be trusted and is passed over: lines may be sent again, none is skipped"
                ),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::warn!(file = %path.display(), %error, "this checkpoint cannot be read");
                }
            }
        }
        let Some(document) = documents.into_iter().max_by_key(|document| document.generation) else {
            tracing::info!("no checkpoint: reading every file from its beginning");
            return Vec::new();
        };
        tracing::info!(
            generation = document.generation,
            written = document.written,
            files = document.files.len(),
            "checkpoint loaded"
        );
        self.generation = document.generation;
        document.files
    }

    /// Prepares the next checkpoint; to write it takes disk time, which the caller spends off the event loop.
    pub(crate) fn prepare(&mut self, files: Vec<FileEntry>) -> Pending {
        self.generation = self.generation.saturating_add(1);
        let document = Document::new(self.generation, files);
        let slot = if self.generation.is_multiple_of(2) { SLOTS[1] } else { SLOTS[0] };
        Pending { dir: self.path.clone(), slot, document }
    }
}

/// Whether an error says that the file system has no locks, rather than that this one cannot be had.
fn has_no_locks(error: Errno) -> bool {
    matches!(error, Errno::NOLCK | Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL)
}

/// Says whose a directory is and what to do, where it belongs to another user than this process.
fn cure(dir: &Path) -> String {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    match fs::metadata(dir) {
        Ok(found) if found.uid() != uid => format!(
            "it belongs to user {}, group {}, mode {:04o}, and this process is user {uid}, group {gid}: run it as that user, give \
             the directory to this one (chown), or ",
            found.uid(),
            found.gid(),
            found.mode() & 0o7777
        ),
        _ => String::new(),
    }
}

/// The number of a state directory, made when it is used for the first time. Where it cannot be kept, it is one for this run.
fn instance(dir: &Path) -> Instance {
    let path = dir.join(INSTANCE);
    let known = fs::read_to_string(&path).ok().and_then(|text| u64::from_str_radix(text.trim(), 16).ok());
    let Some(known) = known else {
        let number = random();
        match replace(dir, [INSTANCE_TEMPORARY, INSTANCE], |file| writeln!(file, "{number:016x}")) {
            Ok(()) => tracing::info!(
                state_dir = %dir.display(),
                "a new state directory: records get ids that were never used"
            ),
            Err(error) => tracing::warn!(
                file = %path.display(),
                %error,
                "cannot be written: records get other ids after the next start"
            ),
        }
        return Instance(number);
    };
    Instance(known)
}

/// Writes a file so that it is there as a whole or not at all: first by a temporary name, then renamed to its own.
fn replace(dir: &Path, names: [&str; 2], write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let [temporary, name] = names.map(|name| dir.join(name));
    let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&temporary)?;
    write(&mut file)?;
    file.sync_all()?;
    fs::rename(&temporary, name)?;
    directory::sync(dir)
}

/// A checkpoint on its way to the disk.
#[derive(Debug)]
pub(crate) struct Pending {
    dir: PathBuf,
    slot: &'static str,
    document: Document,
}

impl Pending {
    /// Writes it so that it is there as a whole or not at all.
    ///
    /// # Errors
    /// As the disk gives them; the older checkpoint is then still there.
    pub(crate) fn write(&self) -> io::Result<()> {
        replace(&self.dir, [SLOT_TEMPORARY, self.slot], |file| self.document.write_to(file))
    }
}

#[cfg(test)]
mod tests {
    use super::super::document::tests::{at, entry};
    use super::*;

    fn write(state: &mut StateDir, files: Vec<FileEntry>) {
        state.prepare(files).write().unwrap();
    }

    #[test]
    fn what_is_written_is_read_and_a_damaged_slot_falls_back_to_the_other() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = StateDir::open(dir.path()).unwrap();
        assert!(state.load().is_empty());
        write(&mut state, vec![entry(&[("a", at(1))])]);
        write(&mut state, vec![entry(&[("a", at(2))])]);
        assert_eq!(state.load()[0].of_sink("a"), Some(at(2)));

        let newest = dir.path().join(SLOTS[1]);
        let whole = fs::read(&newest).unwrap();
        for damage in [whole[..whole.len() / 2].to_vec(), [&whole[..20], b"X", &whole[21..]].concat(), vec![]]
        {
            fs::write(&newest, damage).unwrap();
            assert_eq!(state.load()[0].of_sink("a"), Some(at(1)));
        }
        fs::write(dir.path().join(SLOTS[0]), b"\0\0\0").unwrap();
        assert!(state.load().is_empty());
    }

    #[test]
    fn a_directory_of_another_user_is_shown_with_both_users_and_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(cure(dir.path()), "");
        let others = if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(dir.path(), Some(65532), Some(65532)).unwrap();
            dir.path()
        } else {
            Path::new("/")
        };
        let cure = cure(others);
        assert!(cure.contains("this process is user") && cure.contains("chown"), "{cure}");
    }

    #[test]
    fn one_agent_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = StateDir::open(dir.path()).unwrap();
        let failure = StateDir::open(dir.path()).unwrap_err();
        assert_eq!(failure.exit, Exit::Unavailable);
        drop(first);
        // A process that another test starts has every descriptor, and so the lock, until it runs its program.
        testkit::wait_until("the lock is free", || StateDir::open(dir.path()).is_ok());
    }
}
