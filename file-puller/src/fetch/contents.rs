//! What has arrived in one piece, an archive, a commit or an image, on its way to a release: [`Contents`].

use std::time::SystemTime;

use crate::content::{
    Digest, FileMode, Limits, Listing, ListingError, Manifest, ManifestFile, NamesBudget, ReleasePath,
};
use crate::store::{FileNumber, Placement, Staging, Unpacked, VolumeError};

/// A file that has arrived, or that need not arrive because the volume has it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrived {
    pub(crate) size: u64,
    pub(crate) digest: Digest,
    pub(crate) mode: FileMode,
    /// `None` where an earlier release has it.
    pub(crate) file: Option<FileNumber>,
}

/// Where the files of a release are until it is put together, in the order of its manifest.
#[derive(Debug)]
pub(crate) struct Contents {
    unpacked: Unpacked,
    files: Vec<Option<FileNumber>>,
}

/// Why files could not be given their places.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlaceError {
    /// It has not arrived, because an earlier release had it, and no release has it any more.
    #[error("{0} is not in what was sent")]
    NotArrived(ReleasePath),
    #[error(transparent)]
    Volume(#[from] VolumeError),
}

impl Contents {
    /// Resolves the listing's links: what is left is a release.
    pub(crate) fn new(
        unpacked: Unpacked,
        listing: Listing<Arrived>,
        limits: &Limits,
        names: NamesBudget,
    ) -> Result<(Self, Manifest), ListingError> {
        let listed = listing.into_files(limits, names, |file| file.size)?;
        let files = listed.iter().map(|(_, arrived)| arrived.file).collect();
        let described = listed.into_iter().map(|(path, Arrived { size, digest, mode, .. })| ManifestFile {
            path,
            size,
            digest,
            mode,
            url: None,
        });
        let manifest = Manifest { created: SystemTime::now(), site: None, files: described.collect() };
        Ok((Self { unpacked, files }, manifest))
    }

    /// Gives files of the manifest their places in the staged tree.
    pub(crate) fn place(
        mut self,
        staging: &Staging,
        manifest: &Manifest,
        wanted: &[usize],
    ) -> Result<(), PlaceError> {
        let mut placements = Vec::with_capacity(wanted.len());
        for index in wanted {
            let ManifestFile { path, mode, .. } = &manifest.files[*index];
            let Some(number) = self.files[*index] else { return Err(PlaceError::NotArrived(path.clone())) };
            placements.push(Placement { number, mode: *mode, path });
        }
        Ok(self.unpacked.place(staging, placements)?)
    }
}
