//! What a later process has to know of the source: `<volume>/.source.json`.
//!
//! It saves the first request after a restart from fetching everything, and keeps the kind of the source that was seen first. It
//! is a cache and no more: what is missing, damaged or of another source is as good as nothing, and a failure to write it is no
//! failure of a sync. It is written when a release was published, and when the source answers with the same release and another
//! validator, with which a later process asks; while nothing changes, nothing is written.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use lifecycle::Ignore as _;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::options::EngineOptions;
use crate::content::{Digest, FileMode, ReleaseId};
use crate::source::{Kind, SourceUrl, Validator};
use crate::store::set_mode;

/// Its name on the volume.
const NAME: &str = ".source.json";
/// While it is written.
const TEMPORARY: &str = ".staging/source.json";
/// It is some hundred bytes; whatever is larger is not ours.
const MAX_LEN: u64 = 64 * 1024;

/// What was learned from the last answer that was followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Remembered {
    /// The release that is in place because of it.
    pub(super) release: ReleaseId,
    pub(super) kind: Kind,
    pub(super) validator: Validator,
}

/// The file.
#[derive(Debug)]
pub(super) struct Memory {
    volume: PathBuf,
    /// Of the URL, which may have a secret in it.
    source: String,
    /// Of the flags that decide what an answer means.
    settings: String,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    source: String,
    settings: String,
    kind: Kind,
    release: String,
    validator: Validator,
}

impl Memory {
    pub(super) fn new(volume: PathBuf, source: &SourceUrl, options: &EngineOptions) -> Self {
        let EngineOptions { authenticity, selection, oci, .. } = options;
        // Another key may not have signed what is in place. One that cannot be read now is the sync's to complain about.
        let key = authenticity.public_key.as_deref().and_then(|path| fs::read(path).ok());
        let settings = match &oci.platform {
            None => format!("{authenticity:?} {selection:?} {key:?}"),
            Some(platform) => format!("{authenticity:?} {selection:?} {key:?} {platform:?}"),
        };
        // An image's name is no part of its registry's URL, and a URL's query is not shown.
        let source = match source.image() {
            None => digest(source.url().as_str()),
            Some(image) => digest(&image.to_string()),
        };
        Self { volume, source, settings: digest(&settings) }
    }

    /// What is remembered of this source: its kind, and the rest where it was asked for with the same flags.
    pub(super) fn load(&self) -> Option<(Kind, Option<Remembered>)> {
        let stored = read(&self.volume.join(NAME)).ok()?;
        let Stored { source, settings, kind, release, validator } = serde_json::from_slice(&stored).ok()?;
        if source != self.source {
            return None;
        }
        let release = ReleaseId::parse(&release).filter(|_| settings == self.settings);
        Some((kind, release.map(|release| Remembered { release, kind, validator })))
    }

    /// Writes it.
    pub(super) fn store(&self, now: &Remembered) {
        if let Err(error) = self.write(now) {
            tracing::debug!(%error, "what the source said is not remembered; the next start asks for all of it");
        }
    }

    fn write(&self, now: &Remembered) -> io::Result<()> {
        let stored = Stored {
            source: self.source.clone(),
            settings: self.settings.clone(),
            kind: now.kind,
            release: now.release.to_string(),
            validator: now.validator.clone(),
        };
        let (temporary, path) = (self.volume.join(TEMPORARY), self.volume.join(NAME));
        let written = write_plain(&temporary, &serde_json::to_vec(&stored)?)
            .and_then(|()| fs::rename(&temporary, path));
        if written.is_err() {
            // The first failure is the one to tell.
            fs::remove_file(&temporary).ignore();
        }
        written
    }
}

/// Writes a file that a later process of another user can read, whatever the umask is. SECURITY: without it, that process would
/// take the source to be of whatever kind the next answer has.
fn write_plain(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = fs::File::create(path)?;
    set_mode(&file, FileMode::PLAIN)?;
    file.write_all(text)
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    if fs::symlink_metadata(path)?.len() > MAX_LEN {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    fs::read(path)
}

fn digest(text: &str) -> String {
    Digest::of(Sha256::new_with_prefix(text)).to_string()
}
