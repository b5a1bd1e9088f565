//! Whether a manifest is one that we may follow: signed for `--public-key`, and not older than what was accepted before.
//!
//! How far the content manager had come is remembered on the volume, as the time in the published release's manifest, so that a
//! restart forgets nothing. Where the same content is signed anew, that manifest is replaced by the newer one.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use crate::failure::SyncError;
use crate::location;
use crate::manifest::Manifest;
use crate::release::ReleaseId;
use crate::signature::{PublicKey, SignatureError};
use crate::source::{Freshness, Source};
use crate::stage;
use crate::volume::{Volume, on_disk};

/// Who has to have signed, and the newest that he has.
#[derive(Debug)]
pub(super) struct Authority {
    public_key: PathBuf,
    newest: Option<SystemTime>,
}

impl Authority {
    pub(super) fn new(public_key: PathBuf) -> Self {
        Self { public_key, newest: None }
    }

    /// Holds a manifest's bytes to the signature beside it.
    pub(super) async fn check(
        &self,
        source: &Source,
        json: &[u8],
        freshness: Freshness,
    ) -> Result<(), SyncError> {
        let path = self.public_key.clone();
        // Read at each sync, like a token: keys are rotated, too.
        let key = on_disk(move || PublicKey::read(&path)).await?;
        let (url, signature) = source.signature(freshness).await?;
        if key.vouches_for(json, &signature) {
            return Ok(());
        }
        Err(SignatureError::Wrong { url: location::display(&url) }.into())
    }

    /// Refuses what was made before the newest that was accepted.
    pub(super) async fn check_age(&self, volume: &Arc<Volume>, manifest: &Manifest) -> Result<(), SyncError> {
        let published = if self.newest.is_some() {
            self.newest
        } else {
            let volume = Arc::clone(volume);
            let current = move || Ok::<_, SyncError>(volume.current()?.and_then(|id| volume.manifest(&id)));
            on_disk(current).await?.map(|manifest| manifest.created)
        };
        match published {
            Some(published) if manifest.created < published => {
                Err(SignatureError::Older { created: manifest.created, published }.into())
            }
            _ => Ok(()),
        }
    }

    /// Remembers how far the content manager has come.
    pub(super) async fn accepted(
        &mut self,
        volume: &Arc<Volume>,
        id: &ReleaseId,
        manifest: &Arc<Manifest>,
    ) -> Result<(), SyncError> {
        let (volume, id, manifest) = (Arc::clone(volume), id.clone(), Arc::clone(manifest));
        self.newest = Some(manifest.created);
        on_disk(move || {
            let known = volume.manifest(&id).map(|manifest| manifest.created);
            if known.is_none_or(|known| known < manifest.created) {
                stage::replace_manifest(&volume, &id, &manifest)?;
            }
            Ok(())
        })
        .await
    }
}
