//! Following an image in a registry: one `HEAD` where nothing changed, otherwise its layers, lowest first.

use std::sync::Arc;
use std::time::SystemTime;

use lifecycle::blocking;

use super::error::SyncError;
use super::intake::Intake;
use super::remembered::Remembered;
use crate::content::{Digest, Manifest, ReleaseId};
use crate::fetch::{Contents, feed, pump};
use crate::oci::{Image, Layer, Registry, RegistryError};
use crate::source::{Kind, Source, Validator};

const ALGORITHM: &str = "sha256:";

/// An image that is followed.
#[derive(Debug)]
pub(super) struct ImageSource {
    registry: Registry,
    /// The digest of the manifest that is published, and its release.
    published: Option<(Digest, ReleaseId)>,
}

/// An image whose layers have all arrived.
pub(super) struct Received {
    pub(super) contents: Contents,
    pub(super) manifest: Manifest,
    pub(super) wire_bytes: u64,
}

impl ImageSource {
    pub(super) fn new(registry: Registry) -> Self {
        Self { registry, published: None }
    }

    /// Makes the next sync fetch the image, whether or not it has changed.
    pub(super) fn distrust(&mut self) {
        self.published = None;
    }

    /// Notes what `current` is, and returns what to remember of it.
    pub(super) fn published(&mut self, digest: Digest, release: ReleaseId) -> Remembered {
        self.published = Some((digest, release.clone()));
        Remembered {
            release,
            kind: Kind::Image,
            validator: Validator::of_tag(tag(&digest), SystemTime::now()),
        }
    }

    /// Takes up what an earlier process has published, and returns the digest of its manifest.
    pub(super) fn was_published(&mut self, last: &Remembered) -> Option<String> {
        let tag = last.validator.tag()?.to_str().ok()?.to_owned();
        let digest = Digest::parse(tag.strip_prefix(ALGORITHM)?)?;
        self.published = Some((digest, last.release.clone()));
        Some(tag)
    }

    /// Whether `current` is known to be what the registry has.
    pub(super) async fn is_in_step(
        &mut self,
        source: &Source,
        current: Option<&ReleaseId>,
    ) -> Result<bool, SyncError> {
        match &self.published {
            Some((published, release)) if current == Some(release) => {
                Ok(self.registry.digest(source).await? == Some(*published))
            }
            _ => Ok(false),
        }
    }

    /// Whether a release is known to be the image with this digest.
    pub(super) fn is_published(&self, digest: &Digest, release: &ReleaseId) -> bool {
        self.published.as_ref().is_some_and(|(published, is)| published == digest && is == release)
    }

    /// The image's digest and its layers, lowest first, where they may be fetched.
    pub(super) async fn layers(&mut self, intake: &Intake) -> Result<(Digest, Vec<Layer>), SyncError> {
        let (digest, layers) = self.registry.layers(&intake.source).await?;
        let limit = intake.unpacking.max_archive_size;
        let announced = announced(&layers);
        if announced > limit {
            let limit = bytesize::ByteSize(limit);
            let why = format!("its layers are larger than --max-archive-size {limit}");
            return Err(RegistryError::Refused(why).into());
        }
        Ok((digest, layers))
    }

    /// Fetches all layers.
    pub(super) async fn receive(&mut self, intake: &Intake, layers: &[Layer]) -> Result<Received, SyncError> {
        let limit = intake.unpacking.max_archive_size;
        let mut image = Image::begin(Arc::clone(&intake.volume))?;
        let mut wire_bytes = 0;
        for layer in layers {
            let body = self.registry.blob(&intake.source, layer).await?;
            let (sender, receiver) = feed();
            let (selection, limits, unpacking) = (intake.selection.clone(), intake.limits, intake.unpacking);
            let Layer { digest, .. } = *layer;
            let layer = layer.clone();
            let unpacked = blocking(move || {
                let added = image.add(receiver, &layer, &selection, &limits, &unpacking);
                added.map(|()| image)
            });
            let arriving = pump(body, sender, limit - wire_bytes.min(limit), Some(digest));
            let (arrived, added) = tokio::join!(arriving, unpacked);
            // Where the connection broke, that the layer is incomplete is only its consequence.
            wire_bytes += arrived?;
            image = added?;
        }
        intake.metrics.fetched(layers.len(), wire_bytes);
        let (contents, manifest) = image.finish(&intake.limits)?;
        Ok(Received { contents, manifest, wire_bytes })
    }
}

/// A digest as registries write it.
pub(super) fn tag(digest: &Digest) -> String {
    format!("{ALGORITHM}{digest}")
}

/// Bytes of all layers as they come over the wire.
pub(super) fn announced(layers: &[Layer]) -> u64 {
    layers.iter().fold(0_u64, |sum, layer| sum.saturating_add(layer.size))
}
