//! What a checkpoint says: each file, and what each sink has confirmed of it.

use std::io::{self, BufWriter, IntoInnerError, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::identity::{Epoch, FileId, FileKey, Fingerprint};
use crate::position::{Confirmed, SinkIndex};

/// The first field of a checkpoint; one with another is not for this version to read.
const FORMAT: &str = "log-agent-checkpoint/1";
/// The end of the first line, and its checksum as the second: eight hex digits and a line break.
const TRAILER: usize = 10;

/// One content of a file, as it is remembered.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct FileEntry {
    /// What the file system said it is.
    pub(crate) key: FileKey,
    /// Which content of it.
    pub(crate) epoch: Epoch,
    /// The id that its records carry, once any was read.
    pub(crate) id: Option<FileId>,
    /// The file's last name.
    #[serde(with = "path_text")]
    pub(crate) path: PathBuf,
    /// The log that the file belongs to, where that is not its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) log: Option<PathText>,
    /// Its size when this was written: what was there, should it be gone.
    pub(crate) size: u64,
    /// Of its first bytes.
    pub(crate) head: Fingerprint,
    /// Of the bytes right before `size`, where that is behind what was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tail: Option<Fingerprint>,
    /// Bytes behind what was read.
    #[serde(with = "optional_base64", default, skip_serializing_if = "Option::is_none")]
    pub(crate) next: Option<Vec<u8>>,
    /// Where those begin, where that is not right behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) next_at: Option<u64>,
    /// How far it was read for the sink that is furthest: records before it may have arrived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sent: Option<Confirmed>,
    /// Bytes before it are delivered, or entered as lost.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) given_up: u64,
    /// The file has another content now, or is gone: what is left of this one is under way to the sinks.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) gone: bool,
    /// Nothing of it was read, because it may be the copy of what another file of the log holds.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) pending_copy: bool,
    /// By sink.
    #[serde(with = "by_sink")]
    pub(crate) confirmed: Vec<(String, Confirmed)>,
    /// When it was last followed, in seconds since 1970.
    pub(crate) seen: u64,
    /// How far it was read for what was sent after this was written, by [`super::SentLog`].
    #[serde(skip)]
    pub(crate) sent_since: Vec<Confirmed>,
}

impl FileEntry {
    /// The log that the file belongs to.
    pub(crate) fn log(&self) -> &Path {
        self.log.as_ref().map_or(&self.path, |log| &log.0)
    }

    /// Where this sink stands, if the entry knows it.
    pub(crate) fn of_sink(&self, name: &str) -> Option<Confirmed> {
        self.confirmed.iter().find(|(known, _)| known == name).map(|(_, at)| *at)
    }

    /// Where each of these sinks stands.
    ///
    /// A sink that the entry does not know takes over from one that is configured no more (its URL was changed), from the
    /// least advanced of those; where there is none, it is an additional sink and begins at the beginning.
    pub(crate) fn confirmed_by(&self, sinks: &[String]) -> Vec<Confirmed> {
        let former = self.confirmed.iter().filter(|(name, _)| !sinks.contains(name)).map(|(_, at)| *at);
        let inherited = former.min_by_key(|confirmed| confirmed.offset).unwrap_or_else(Confirmed::nothing);
        sinks.iter().map(|name| self.of_sink(name).unwrap_or(inherited)).collect()
    }

    /// The bytes that were there and that sinks did not confirm. A sink that is configured additionally has no claim to a file
    /// that was gone before.
    pub(crate) fn unconfirmed(&self, sinks: &[String]) -> Vec<(SinkIndex, Range<u64>)> {
        let additional = |name| {
            self.of_sink(name).is_none() && self.confirmed.iter().all(|(known, _)| sinks.contains(known))
        };
        let positions = SinkIndex::all(sinks.len()).zip(sinks).zip(self.confirmed_by(sinks));
        let left = positions
            .filter(|((_, name), _)| !additional(*name))
            .map(|((sink, _), confirmed)| (sink, confirmed.offset.get().max(self.given_up)..self.size));
        left.filter(|(_, range)| !range.is_empty()).collect()
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "what serde calls")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A path in a field of its own, or in an option.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct PathText(#[serde(with = "path_text")] pub(crate) PathBuf);

/// Paths as text; one that is not UTF-8 as its bytes.
mod path_text {
    use std::ffi::OsString;
    use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
    use std::path::{Path, PathBuf};

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Text {
        Utf8(String),
        Bytes(Vec<u8>),
    }

    pub(super) fn serialize<S: Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
        match path.to_str() {
            Some(text) => text.serialize(to),
            None => path.as_os_str().as_bytes().serialize(to),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
        Ok(match Text::deserialize(from)? {
            Text::Utf8(text) => text.into(),
            Text::Bytes(bytes) => OsString::from_vec(bytes).into(),
        })
    }
}

/// A map, of which an entry has a handful of pairs: for each of many files at once, a tree would take ten times the memory.
mod by_sink {
    use std::collections::BTreeMap;

    use serde::{Deserialize as _, Deserializer, Serializer};

    use crate::position::Confirmed;

    pub(super) fn serialize<S: Serializer>(pairs: &[(String, Confirmed)], to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(pairs.iter().map(|(name, at)| (name, at)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Vec<(String, Confirmed)>, D::Error> {
        BTreeMap::deserialize(from).map(|pairs| pairs.into_iter().collect())
    }
}

mod optional_base64 {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serializer};

    #[expect(clippy::ref_option, reason = "what serde calls")]
    pub(super) fn serialize<S: Serializer>(bytes: &Option<Vec<u8>>, to: S) -> Result<S::Ok, S::Error> {
        match bytes {
            Some(bytes) => to.serialize_str(&STANDARD.encode(bytes)),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<u8>>, D::Error> {
        let text = String::deserialize(from)?;
        STANDARD.decode(text).map(Some).map_err(serde::de::Error::custom)
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Document {
    format: String,
    pub(super) generation: u64,
    pub(super) written: String,
    pub(super) files: Vec<FileEntry>,
}

impl Document {
    pub(super) fn new(generation: u64, files: Vec<FileEntry>) -> Self {
        let written = humantime::format_rfc3339_micros(SystemTime::now()).to_string();
        Self { format: FORMAT.to_owned(), generation, written, files }
    }

    /// Writes it: one line of JSON, and its checksum as the second. Piece by piece, since it is as long as there are files.
    pub(super) fn write_to(&self, to: impl Write) -> io::Result<()> {
        let mut line = BufWriter::new(Summed { to, checksum: crc32fast::Hasher::new() });
        serde_json::to_writer(&mut line, self)?;
        let Summed { mut to, checksum } = line.into_inner().map_err(IntoInnerError::into_error)?;
        let checksum = checksum.finalize();
        to.write_all(format!("\n{checksum:08x}\n").as_bytes())
    }

    /// Reads what was written.
    ///
    /// # Errors
    /// Why it cannot be trusted.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let (line, trailer) = bytes.split_last_chunk::<TRAILER>().ok_or("it is torn: too short")?;
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

/// Sums up what is written.
struct Summed<W> {
    to: W,
    checksum: crc32fast::Hasher,
}

impl<W: Write> Write for Summed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.checksum.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
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
            log: None,
            sent: None,
            given_up: 0,
            gone: false,
            pending_copy: false,
            size: 100,
            head: Fingerprint::of(b"head"),
            tail: None,
            next: None,
            next_at: None,
            sent_since: Vec::new(),
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
        let left = entry.unconfirmed(&names(&["a", "b", "c"]));
        assert_eq!(
            left,
            [(SinkIndex(0), 10..100), (SinkIndex(1), 20..100)],
            "an additional sink lost nothing"
        );
    }

    #[test]
    fn a_name_that_is_not_text_is_remembered() {
        use std::os::unix::ffi::OsStrExt as _;
        let mut entry = entry(&[]);
        entry.path = std::path::Path::new(std::ffi::OsStr::from_bytes(b"/logs/caf\xe9.log")).to_owned();
        entry.log = Some(PathText(entry.path.clone()));
        let text = serde_json::to_string(&entry).unwrap();
        let again: FileEntry = serde_json::from_str(&text).unwrap();
        assert_eq!((&again.path, &again.log), (&entry.path, &entry.log));
    }
}
