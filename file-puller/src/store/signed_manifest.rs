//! A signed manifest as it was signed: its exact bytes and the signature beside them, `releases/<id>.json` and `<id>.json.sig`.
//!
//! Only these bytes can be verified again, so a mirror gives them out as they are (docs/contract.md, section 2). They wait in the
//! private directory until their release is put together, because in memory there is no room for a manifest as text and as what
//! it says. An unsigned manifest is written by [`super::Staging`].

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::Arc;

use lifecycle::Ignore as _;
use rustix::fs::AtFlags;

use super::create::{create_file, set_mode};
use super::directory::unlink;
use super::private::{Private, SIGNED, SIGNED_SIGNATURE};
use super::sys;
use super::volume::{Context as _, RELEASES, Volume, VolumeError, manifest_name, signature_name};
use crate::content::{FileMode, ReleaseId};
use crate::crash_point::crash_point;

/// Bytes compared at a time.
const BUFFER: usize = 64 * 1024;

/// A manifest and its signature, in the private directory. Dropping them removes them.
#[derive(Debug)]
pub(crate) struct SignedManifest {
    private: Arc<Private>,
    manifest: File,
    signature: File,
}

impl SignedManifest {
    /// Writes both into the private directory.
    pub(crate) fn write(volume: &Volume, json: &[u8], signature: &[u8]) -> Result<Self, VolumeError> {
        Self::fill(volume, json, signature)
    }

    /// Copies those of a release on the volume. They are not in memory meanwhile.
    pub(crate) fn copy(volume: &Volume, id: &ReleaseId) -> Result<Self, VolumeError> {
        let releases = volume.path().join(RELEASES);
        let open = |name: String| {
            let path = releases.join(name);
            File::open(&path).context(|| format!("open {}", path.display()))
        };
        Self::fill(volume, open(manifest_name(id))?, open(signature_name(id))?)
    }

    fn fill(volume: &Volume, manifest: impl Read, signature: impl Read) -> Result<Self, VolumeError> {
        let private = volume.private()?;
        let context = |name: &str| format!("write {}/{name}", private.path().display());
        let take_away = |name| unlink(private.directory(), name);
        let make = |name| {
            take_away(name)?;
            create_file(private.directory(), name).map(File::from)
        };
        let manifest_file = make(SIGNED).context(|| context(SIGNED))?;
        let signature_file = make(SIGNED_SIGNATURE)
            .inspect_err(|_| take_away(SIGNED).ignore())
            .context(|| context(SIGNED_SIGNATURE))?;
        crash_point();
        // From here on both go where the rest fails.
        let signed =
            Self { manifest: manifest_file, signature: signature_file, private: Arc::clone(&private) };
        write(&signed.manifest, manifest, volume.manifest_mode()).context(|| context(SIGNED))?;
        crash_point();
        write(&signed.signature, signature, volume.manifest_mode()).context(|| context(SIGNED_SIGNATURE))?;
        crash_point();
        Ok(signed)
    }

    /// Whether the volume has exactly these two for a release.
    pub(crate) fn is_recorded(volume: &Volume, id: &ReleaseId, json: &[u8], signature: &[u8]) -> bool {
        let releases = volume.path().join(RELEASES);
        holds(&releases.join(manifest_name(id)), json) && holds(&releases.join(signature_name(id)), signature)
    }

    /// Gives both the names that a release of this private directory has, and returns them open.
    pub(super) fn into_release(self, private: &Private, id: &ReleaseId) -> Result<(File, File), VolumeError> {
        let names = [(SIGNED_SIGNATURE, signature_name(id)), (SIGNED, manifest_name(id))];
        for (from, to) in names {
            rustix::fs::renameat(self.private.directory(), from, private.directory(), &*to)
                .context(|| format!("make {}/{to}", private.path().display()))?;
            crash_point();
        }
        let opened =
            self.manifest.try_clone().and_then(|manifest| Ok((manifest, self.signature.try_clone()?)));
        opened.context(|| format!("keep the manifest of {id} open"))
    }

    /// Replaces the manifest and the signature of a release that is in its place. A manifest says how old content may be that is
    /// accepted after a crash, so it has to be on the disk before `current` names the release.
    pub(crate) fn replace(self, volume: &Volume, id: &ReleaseId) -> Result<(), VolumeError> {
        let context = || format!("replace {volume}/{RELEASES}/{}", manifest_name(id));
        for file in [&self.signature, &self.manifest] {
            rustix::fs::fsync(file.as_fd()).context(context)?;
        }
        // A mirror that reads them in between finds that they do not belong together, and its pullers ask again.
        for (from, to) in [(SIGNED_SIGNATURE, signature_name(id)), (SIGNED, manifest_name(id))] {
            rustix::fs::renameat(self.private.directory(), from, volume.releases(), &*to).context(context)?;
            crash_point();
        }
        sys::sync_directory(volume.releases()).context(context)
    }
}

impl Drop for SignedManifest {
    fn drop(&mut self) {
        for name in [SIGNED, SIGNED_SIGNATURE] {
            // They may have moved on, and the next start sweeps what stays.
            rustix::fs::unlinkat(self.private.directory(), name, AtFlags::empty()).ignore();
        }
    }
}

fn write(mut file: &File, mut from: impl Read, mode: FileMode) -> io::Result<()> {
    io::copy(&mut from, &mut file)?;
    set_mode(file, mode)
}

/// Whether a file is there with exactly these bytes.
fn holds(path: &Path, bytes: &[u8]) -> bool {
    let compare = || -> io::Result<bool> {
        let mut file = fs::File::open(path)?;
        if file.metadata()?.len() != bytes.len() as u64 {
            return Ok(false);
        }
        let mut buffer = vec![0; BUFFER.min(bytes.len())];
        for expected in bytes.chunks(BUFFER) {
            let found = &mut buffer[..expected.len()];
            file.read_exact(found)?;
            if found != expected {
                return Ok(false);
            }
        }
        Ok(true)
    };
    compare().unwrap_or_default()
}
