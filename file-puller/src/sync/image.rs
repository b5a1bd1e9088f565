//! Following an image in a registry: one `HEAD` where nothing changed, otherwise its layers, lowest first.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use http::HeaderValue;

use super::error::SyncError;
use super::intake::Intake;
use super::outcome::Outcome;
use super::publisher::Publisher;
use super::remembered::{Memory, Remembered};
use crate::content::{Digest, Manifest, ReleaseId};
use crate::fetch::{Allowance, Contents, Tars, Whiteouts, receive};
use crate::metrics::Phase;
use crate::oci::{Layer, Registry, RegistryError};
use crate::source::{Kind, Validator};
use crate::store::Staging;

const ALGORITHM: &str = "sha256:";

/// An image that is followed.
#[derive(Debug)]
pub(super) struct ImageSource {
    registry: Registry,
    /// The digest of the manifest that is published, and its release.
    published: Option<(Digest, ReleaseId)>,
    /// The digest of the manifest whose release the gate holds back.
    held: Option<Digest>,
}

impl ImageSource {
    pub(super) fn new(registry: Registry) -> Self {
        Self { registry, published: None, held: None }
    }

    /// Makes the next sync fetch the image, whether or not it has changed.
    pub(super) fn distrust(&mut self) {
        self.published = None;
    }

    /// Takes up what an earlier process has published.
    pub(super) fn was_published(&mut self, last: Remembered) {
        let digest = |tag: HeaderValue| Digest::parse(tag.to_str().ok()?.strip_prefix(ALGORITHM)?);
        self.published = last.validator.tag().and_then(digest).map(|digest| (digest, last.release));
    }

    /// The digest of the manifest that is published.
    pub(super) fn digest(&self) -> Option<String> {
        self.published.as_ref().map(|(digest, _)| tag(digest))
    }

    /// Publishes the image that the registry has now.
    pub(super) async fn follow(
        &mut self,
        intake: &Intake,
        publisher: &mut Publisher,
        memory: &Memory,
        current: Option<ReleaseId>,
    ) -> Result<Outcome, SyncError> {
        self.published.take_if(|(_, release)| current.as_ref() != Some(release));
        self.held.take_if(|_| !publisher.is_holding());
        if (self.published.is_some() || self.held.is_some())
            && let Some(digest) = self.registry.digest(&intake.source).await?
            && let Some(outcome) = self.known(publisher, memory, current.as_ref(), &digest).await
        {
            return outcome;
        }
        let (digest, layers) = self.layers(intake).await?;
        // Where the registry did not tell the digest, the manifest does.
        if let Some(outcome) = self.known(publisher, memory, current.as_ref(), &digest).await {
            return outcome;
        }
        let began = Instant::now();
        let (contents, manifest, wire_bytes) = self.receive(intake, publisher, layers).await?;
        intake.metrics.phase(Phase::Unpack, began);
        let outcome = publisher.publish_contents(contents, manifest, wire_bytes, current, None).await;
        self.remember(memory, digest, outcome)
    }

    /// What comes of an image that need not be fetched: it is the one that is published, or that the gate holds back.
    async fn known(
        &mut self,
        publisher: &mut Publisher,
        memory: &Memory,
        current: Option<&ReleaseId>,
        digest: &Digest,
    ) -> Option<Result<Outcome, SyncError>> {
        if self.held.take_if(|held| held != digest).is_some() {
            publisher.held = None;
        }
        if let Some((_, release)) = self.published.as_ref().filter(|(published, _)| published == digest) {
            return Some(Ok(Outcome::Unchanged(release.clone())));
        }
        self.held.take()?;
        let outcome = publisher.ask_again(current.cloned()).await?;
        Some(self.remember(memory, *digest, outcome))
    }

    /// Remembers an image, and what came of it.
    fn remember(
        &mut self,
        memory: &Memory,
        digest: Digest,
        outcome: Result<Outcome, SyncError>,
    ) -> Result<Outcome, SyncError> {
        self.held = outcome.as_ref().is_err_and(SyncError::is_held_back).then_some(digest);
        let outcome = outcome?;
        let release = outcome.release().clone();
        self.published = Some((digest, release.clone()));
        let validator = Validator::of_tag(tag(&digest), SystemTime::now());
        memory.store(&Remembered { release, kind: Kind::Image, validator });
        Ok(outcome)
    }

    /// Stages the damaged files of a release, if that is the image that the registry has.
    pub(super) async fn stage_damaged(
        &mut self,
        intake: &Intake,
        publisher: &mut Publisher,
        id: &ReleaseId,
        damaged: &Manifest,
    ) -> Result<Option<Staging>, SyncError> {
        let (_, layers) = self.layers(intake).await?;
        let (contents, manifest, _) = self.receive(intake, publisher, layers).await?;
        publisher.stage_damaged(id, contents, &manifest, damaged)
    }

    /// The image's digest and its layers, lowest first, where they may be fetched.
    async fn layers(&mut self, intake: &Intake) -> Result<(Digest, Vec<Layer>), SyncError> {
        let (digest, layers) = self.registry.layers(&intake.source).await?;
        let limit = intake.rules.unpacking.max_archive_size;
        if announced(&layers) > limit {
            let limit = bytesize::ByteSize(limit);
            let why = format!("its layers are larger than --max-archive-size {limit}");
            return Err(RegistryError::Refused(why).into());
        }
        Ok((digest, layers))
    }

    /// Fetches all layers, and returns how many bytes arrived.
    async fn receive(
        &mut self,
        intake: &Intake,
        publisher: &mut Publisher,
        layers: Vec<Layer>,
    ) -> Result<(Contents, Manifest, u64), SyncError> {
        publisher.begin_arrival(announced(&layers))?;
        let allowance = Allowance::new(intake.rules.unpacking.max_archive_size);
        let (volume, rules) = (Arc::clone(&intake.volume), Arc::clone(&intake.rules));
        let mut image = Tars::begin(volume, rules, Whiteouts::TakeAway)?;
        let (files, mut wire_bytes) = (layers.len(), 0);
        for layer in layers {
            let body = self.registry.blob(&intake.source, &layer).await?;
            let read = move |feed| image.add(feed, layer.compression).map(|()| image);
            let allowance = allowance.after(wire_bytes);
            let (added, arrived) = receive(body, allowance, Some(layer.digest), read).await?;
            (image, wire_bytes) = (added?, wire_bytes + arrived);
        }
        intake.metrics.fetched(files, wire_bytes);
        let (contents, manifest) = image.finish("its layers hold no file")?;
        Ok((contents, manifest, wire_bytes))
    }
}

/// A digest as registries write it.
fn tag(digest: &Digest) -> String {
    format!("{ALGORITHM}{digest}")
}

/// Bytes of all layers as they come over the wire.
fn announced(layers: &[Layer]) -> u64 {
    layers.iter().fold(0_u64, |sum, layer| sum.saturating_add(layer.size))
}
