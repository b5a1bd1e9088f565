//! What a checkpoint says: each file, and what each sink has confirmed of it.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::identity::{Epoch, FileId, FileKey, Fingerprint};
use crate::position::Confirmed;

/// The first field of a checkpoint; one with another is not for this version to read.
const FORMAT: &str = "log-agent-checkpoint/1";
/// The checksum of the first line, as the second: eight hex digits and a line break.
const TRAILER: usize = 9;

/// One file, as it is unclaimed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct FileEntry {
    /// What the file system said it is.
    pub(crate) key: FileKey,
    /// Which content of it.
    pub(crate) epoch: Epoch,
    /// The id that its records carry.
    pub(crate) id: FileId,
    /// Its last name, for people.
    pub(crate) path: PathBuf,
    /// Its size when this was written: what was there, should it be gone.
    pub(crate) size: u64,
    /// Of its first bytes.
    pub(crate) head: Fingerprint,
    /// By sink.
    pub(crate) confirmed: BTreeMap<String, Confirmed>,
    /// When it was last followed, in seconds since 1970.
    pub(crate) seen: u64,
}

impl FileEntry {
    /// Where each of these sinks stands.
    ///
    /// A sink that the entry does not know takes over from one that is configured no more (its URL was changed), from the
    /// least advanced of those; where there is none, it is an additional sink and begins at the beginning.
    pub(crate) fn confirmed_by(&self, sinks: &[String]) -> Vec<Confirmed> {
        let former = self.confirmed.iter().filter(|(name, _)| !sinks.contains(name)).map(|(_, at)| *at);
        let inherited = former.min_by_key(|confirmed| confirmed.offset).unwrap_or_else(Confirmed::nothing);
        sinks.iter().map(|name| self.confirmed.get(name).copied().unwrap_or(inherited)).collect()
    }
}

/// The whole of it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Document {
    format: String,
    pub(super) generation: u64,
    pub(super) written: String,
    pub(super) files: Vec<FileEntry>,
}

impl Document {
    /// Of now.
    pub(super) fn new(generation: u64, files: Vec<FileEntry>) -> Self {
        let written = humantime::format_rfc3339_micros(SystemTime::now()).to_string();
        Self { format: FORMAT.to_owned(), generation, written, files }
    }

    /// As it is written: one line of JSON, and its checksum as the second.
    pub(super) fn to_bytes(&self) -> io::Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec(self)?;
        let checksum = crc32fast::hash(&bytes);
        write!(bytes, "\n{checksum:08x}\n")?;
        Ok(bytes)
    }

    /// Reads what was written.
    ///
    /// # Errors
    /// Why it cannot be trusted.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let (line, trailer) = bytes
            .len()
            .checked_sub(TRAILER + 1)
            .map(|end| bytes.split_at(end))
            .ok_or_else(|| "it is torn: too short".to_owned())?;
        let stated =
            std::str::from_utf8(trailer).ok().and_then(|text| u32::from_str_radix(text.trim(), 16).ok());
        if stated != Some(crc32fast::hash(line)) {
            return Err("it is torn or damaged: its checksum does not match".to_owned());
        }
        let document: Self =
            serde_json::from_slice(line).map_err(|error| format!("it is not for this version: {error}"))?;
        if document.format != FORMAT {
            return Err(format!("its format is {:?}, this version reads {FORMAT:?}", document.format));
        }
        Ok(document)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::checkpoint) fn entry(confirmed: &[(&str, Confirmed)]) -> FileEntry {
        FileEntry {
            key: FileKey::of(&std::fs::metadata("/").unwrap()),
            epoch: Epoch::default(),
            id: serde_json::from_str("\"0123456789abcdef\"").unwrap(),
            path: "/logs/access.log".into(),
            size: 100,
            head: Fingerprint::of(b"head"),
            confirmed: confirmed.iter().map(|(name, at)| ((*name).to_owned(), *at)).collect(),
            seen: 1000,
        }
    }

    pub(in crate::checkpoint) fn at(offset: u64) -> Confirmed {
        serde_json::from_value(serde_json::json!({"offset": offset, "before": {"len": 0, "hash": 0}}))
            .unwrap()
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
