//! A signed manifest as it was signed: its exact bytes and the signature beside them, `releases/<id>.json` and `<id>.json.sig`.
//!
//! Only these bytes can be verified again, so a mirror gives them out as they are (docs/contract.md, section 2). They wait in the
//! private directory until their release is put together, because in memory there is no room for a manifest as text and as what
//! it says. An unsigned manifest is written by [`super::Staging`].

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
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
const BUFFER: usize = 8 * 1024;

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
        let private = volume.private()?;
        let write = |name, bytes: &[u8]| {
            let written = write(&private, name, bytes);
            crash_point();
            written.context(|| format!("write {}/{name}", private.path().display()))
        };
        let (manifest, signature) = (write(SIGNED, json)?, write(SIGNED_SIGNATURE, signature)?);
        Ok(Self { private, manifest, signature })
    }

    /// Whether the volume has exactly these two for a release.
    fn is_recorded(&self, volume: &Volume, id: &ReleaseId) -> bool {
        let (own, releases) = (self.private.path(), volume.path().join(RELEASES));
        are_same(&own.join(SIGNED), &releases.join(manifest_name(id)))
            && are_same(&own.join(SIGNED_SIGNATURE), &releases.join(signature_name(id)))
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

    /// Replaces the manifest and the signature of a release that is in its place, unless they are the same. A manifest says how old content may be that is
    /// accepted after a crash, so it has to be on the disk before `current` names the release.
    pub(crate) fn replace(self, volume: &Volume, id: &ReleaseId) -> Result<(), VolumeError> {
        if self.is_recorded(volume, id) {
            return Ok(());
        }
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

fn write(private: &Private, name: &str, bytes: &[u8]) -> io::Result<File> {
    unlink(private.directory(), name)?;
    let mut file = File::from(create_file(private.directory(), name)?);
    file.write_all(bytes)?;
    set_mode(&file, FileMode::PLAIN)?;
    Ok(file)
}

/// Whether both files are there, with the same bytes.
fn are_same(a: &Path, b: &Path) -> bool {
    let compare = || -> io::Result<bool> {
        let [mut a, mut b] = [fs::File::open(a)?, fs::File::open(b)?];
        let mut left = a.metadata()?.len();
        if b.metadata()?.len() != left {
            return Ok(false);
        }
        let mut buffers = [[0; BUFFER]; 2];
        while left > 0 {
            let count = usize::try_from(left).map_or(BUFFER, |left| left.min(BUFFER));
            let [of_a, of_b] = buffers.each_mut().map(|buffer| &mut buffer[..count]);
            a.read_exact(of_a)?;
            b.read_exact(of_b)?;
            if of_a != of_b {
                return Ok(false);
            }
            left -= count as u64;
        }
        Ok(true)
    };
    compare().unwrap_or_default()
}
