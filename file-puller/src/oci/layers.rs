//! From an image's layers to a release: [`Image`].

use std::io::Read;
use std::sync::Arc;

use super::manifest::Layer;
use crate::content::{Limits, Listing, Manifest, NamesBudget, Selection};
use crate::fetch::{ArchiveError, Arrived, Contents, Removed, Unpacker, Unpacking, Whiteouts};
use crate::store::{Unpacked, Volume, VolumeError};

/// An image while its layers arrive, lowest first.
pub(crate) struct Image {
    unpacked: Unpacked,
    listing: Listing<Arrived>,
    /// Bytes of all files so far, also of those that a later layer takes away.
    total: u64,
    names: NamesBudget,
}

impl Image {
    pub(crate) fn begin(volume: Arc<Volume>) -> Result<Self, VolumeError> {
        Ok(Self {
            unpacked: Unpacked::begin(volume)?,
            listing: Listing::default(),
            total: 0,
            names: NamesBudget::of_container(0),
        })
    }

    /// Puts a layer over those before it.
    pub(crate) fn add(
        &mut self,
        input: impl Read + 'static,
        layer: &Layer,
        selection: &Selection,
        limits: &Limits,
        unpacking: &Unpacking,
    ) -> Result<(), ArchiveError> {
        let unpacked = &mut self.unpacked;
        let (total, names) = (self.total, self.names);
        let mut tars = Unpacker { unpacked, selection, limits, unpacking, total, names };
        let tar = tars.read(input, layer.compression, Whiteouts::TakeAway, Some(&self.listing))?;
        (self.total, self.names) = (tars.total, tars.names);
        // Whiteouts are about the layers below, wherever in their own layer they stand.
        for removed in tar.removed {
            match removed {
                Removed::Path(path) => self.listing.remove(&path),
                Removed::Beneath(directory) => self.listing.remove_beneath(&directory),
            }
        }
        let overlaid = self.listing.overlay(tar.listing);
        overlaid
            .map_err(|(path, conflict)| ArchiveError::Refused(format!("{path} {conflict} of a lower layer")))
    }

    /// The release that the layers are together.
    pub(crate) fn finish(self, limits: &Limits) -> Result<(Contents, Manifest), ArchiveError> {
        if self.listing.is_empty() {
            let why = "its layers hold no file, and an empty release is never published";
            return Err(ArchiveError::Refused(why.to_owned()));
        }
        Ok(Contents::new(self.unpacked, self.listing, limits)?)
    }
}
