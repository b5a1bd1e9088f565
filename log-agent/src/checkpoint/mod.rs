//! What survives a restart: which files there are and what each sink has confirmed of them.
//!
//! Two slots are written in turn, each as a whole: a temporary file, synced, renamed over the slot, its directory
//! synced. A crash at any instant leaves the other slot; a slot that is torn or damaged is recognised by its checksum,
//! said, and passed over. An older checkpoint, or none, means that lines are sent again, never that one is skipped.

mod remembered;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use lifecycle::exit::{Exit, Failure, OrExit as _};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::identity::{Epoch, FileId, FileKey, Fingerprint};
use crate::position::Confirmed;
pub use remembered::Remembered;

/// The first field of a checkpoint; one with another is not for this version to read.
const FORMAT: &str = "log-agent-checkpoint/1";
const SLOTS: [&str; 2] = ["checkpoint.0.json", "checkpoint.1.json"];
/// The checksum of the first line, as the second: eight hex digits and a line break.
const TRAILER: usize = 9;

/// One file, as it is remembered.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FileEntry {
    /// What the file system said it is.
    pub key: FileKey,
    /// Which content of it.
    pub epoch: Epoch,
    /// The id that its records carry.
    pub id: FileId,
    /// Its last name, for people.
    pub path: PathBuf,
    /// Its size when this was written: what was there, should it be gone.
    pub size: u64,
    /// Of its first bytes.
    pub head: Fingerprint,
    /// By sink.
    pub confirmed: BTreeMap<String, Confirmed>,
    /// When it was last followed, in seconds since 1970.
    pub seen: u64,
}

impl FileEntry {
    /// Where each of these sinks stands.
    ///
    /// A sink that the entry does not know takes over from one that is configured no more (its URL was changed), from the
    /// least advanced of those; where there is none, it is an additional sink and begins at the beginning.
    pub fn confirmed_by(&self, sinks: &[String]) -> Vec<Confirmed> {
        let former = self.confirmed.iter().filter(|(name, _)| !sinks.contains(name)).map(|(_, at)| *at);
        let inherited = former.min_by_key(|confirmed| confirmed.offset).unwrap_or_else(Confirmed::nothing);
        sinks.iter().map(|name| self.confirmed.get(name).copied().unwrap_or(inherited)).collect()
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Document {
    format: String,
    generation: u64,
    written: String,
    files: Vec<FileEntry>,
}

/// The directory that holds the checkpoint, locked for as long as this value lives.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    generation: u64,
    /// Held for its lock.
    _lock: File,
}

impl StateDir {
    /// Makes the directory where it is missing, and takes its lock.
    ///
    /// # Errors
    /// 74 where it cannot be made or written, 69 where another agent holds it.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let cannot = |what| {
            format!("cannot {what} the state directory {}; choose another with --state-dir", path.display())
        };
        fs::create_dir_all(path)
            .map_err(|error| anyhow::Error::new(error).context(cannot("make")))
            .or_exit(Exit::Io)?;
        let lock = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join("lock"))
            .map_err(|error| anyhow::Error::new(error).context(cannot("write to")))
            .or_exit(Exit::Io)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { path: path.to_owned(), generation: 0, _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(Failure::new(
                Exit::Unavailable,
                format!(
                    "the state directory {} is held by another log-agent; end that one, or give each its own --state-dir",
                    path.display()
                ),
            )),
            Err(error) => Err(anyhow::Error::new(error).context(cannot("lock"))).or_exit(Exit::Io),
        }
    }

    /// The newest checkpoint that can be trusted; nothing where there is none.
    pub fn load(&mut self) -> Vec<FileEntry> {
        let mut newest: Option<Document> = None;
        for slot in SLOTS {
            let path = self.path.join(slot);
            match fs::read(&path) {
                Ok(bytes) => match parse(&bytes) {
                    Ok(document)
                        if newest.as_ref().is_none_or(|best| best.generation < document.generation) =>
                    {
                        newest = Some(document);
                    }
                    Ok(_) => {}
                    Err(reason) => tracing::warn!(
                        file = %path.display(),
                        reason,
                        "this checkpoint cannot be trusted and is passed over: lines may be sent again, none is skipped"
                    ),
                },
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::warn!(file = %path.display(), %error, "this checkpoint cannot be read");
                }
            }
        }
        let Some(document) = newest else {
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

    /// Prepares the next checkpoint; to write it takes disk time, which the caller spends where it hurts nobody.
    pub fn prepare(&mut self, files: Vec<FileEntry>) -> Pending {
        self.generation = self.generation.saturating_add(1);
        let written = humantime::format_rfc3339_micros(SystemTime::now()).to_string();
        let document = Document { format: FORMAT.to_owned(), generation: self.generation, written, files };
        let slot = if self.generation.is_multiple_of(2) { SLOTS[0] } else { SLOTS[1] };
        Pending { dir: self.path.clone(), slot, document }
    }
}

/// A checkpoint on its way to the disk.
#[derive(Debug)]
pub struct Pending {
    dir: PathBuf,
    slot: &'static str,
    document: Document,
}

impl Pending {
    /// Writes it so that it is there as a whole or not at all.
    ///
    /// # Errors
    /// As the disk gives them; the older checkpoint is then still there.
    pub fn write(&self) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(&self.document)?;
        let checksum = crc32fast::hash(&bytes);
        write!(bytes, "\n{checksum:08x}\n")?;
        let temporary = self.dir.join("checkpoint.tmp");
        let mut file =
            OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, self.dir.join(self.slot))?;
        File::open(&self.dir)?.sync_all()
    }
}

fn parse(bytes: &[u8]) -> Result<Document, String> {
    let (line, trailer) = bytes
        .len()
        .checked_sub(TRAILER + 1)
        .map(|end| bytes.split_at(end))
        .ok_or_else(|| "it is torn: too short".to_owned())?;
    let stated = std::str::from_utf8(trailer).ok().and_then(|text| u32::from_str_radix(text.trim(), 16).ok());
    if stated != Some(crc32fast::hash(line)) {
        return Err("it is torn or damaged: its checksum does not match".to_owned());
    }
    let document: Document =
        serde_json::from_slice(line).map_err(|error| format!("it is not for this version: {error}"))?;
    if document.format != FORMAT {
        return Err(format!("its format is {:?}, this version reads {FORMAT:?}", document.format));
    }
    Ok(document)
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn entry(confirmed: &[(&str, Confirmed)]) -> FileEntry {
        FileEntry {
            key: FileKey::of(&fs::metadata("/").unwrap()),
            epoch: Epoch::default(),
            id: serde_json::from_str("\"0123456789abcdef\"").unwrap(),
            path: "/logs/access.log".into(),
            size: 100,
            head: Fingerprint::of(b"head"),
            confirmed: confirmed.iter().map(|(name, at)| ((*name).to_owned(), *at)).collect(),
            seen: 1000,
        }
    }

    fn at(offset: u64) -> Confirmed {
        serde_json::from_value(serde_json::json!({"offset": offset, "before": {"len": 0, "hash": 0}}))
            .unwrap()
    }

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
        assert_eq!(state.load()[0].confirmed["a"], at(2));

        let newest = dir.path().join(SLOTS[0]);
        let whole = fs::read(&newest).unwrap();
        for damage in [whole[..whole.len() / 2].to_vec(), [&whole[..20], b"X", &whole[21..]].concat(), vec![]]
        {
            fs::write(&newest, damage).unwrap();
            assert_eq!(state.load()[0].confirmed["a"], at(1));
        }
        fs::write(dir.path().join(SLOTS[1]), b"\0\0\0").unwrap();
        assert!(state.load().is_empty());
    }

    #[test]
    fn one_agent_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = StateDir::open(dir.path()).unwrap();
        let failure = StateDir::open(dir.path()).unwrap_err();
        assert_eq!(failure.exit, Exit::Unavailable);
        drop(first);
        assert!(StateDir::open(dir.path()).is_ok());
    }

    #[test]
    fn a_changed_url_takes_over_and_an_additional_sink_begins_at_the_beginning() {
        let entry = entry(&[("a", at(10)), ("b", at(20))]);
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(entry.confirmed_by(&names(&["a", "b"])), [at(10), at(20)]);
        assert_eq!(entry.confirmed_by(&names(&["b", "c"])), [at(20), at(10)]);
        assert_eq!(entry.confirmed_by(&names(&["a", "b", "c"]))[2], Confirmed::nothing());
    }
}
