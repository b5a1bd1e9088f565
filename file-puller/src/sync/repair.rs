//! Looking after what is published, between the syncs.

use std::collections::HashSet;
use std::sync::Arc;

use lifecycle::blocking;

use super::error::SyncError;
use super::{Engine, Verdict};
use crate::content::{Manifest, ReleaseId};
use crate::fetch::Contents;
use crate::source::{Compression, Freshness, Kind};
use crate::store::{Staging, VolumeError, damaged, restore, sweep_staging};

impl Engine {
    /// Re-reads the published release and puts right what is damaged.
    pub(crate) async fn verify(&mut self) -> Result<Verdict, SyncError> {
        self.source.renew_credential().await?;
        let verdict = self.repair().await;
        if !matches!(verdict, Ok(Verdict::Sound)) {
            // What was damaged in the release is damaged in its copy.
            drop(self.seed.take());
        }
        if !matches!(verdict, Ok(Verdict::Sound | Verdict::Repaired(_))) {
            // Makes the next sync compare the volume with the source, whether or not that has changed.
            self.last_validator = None;
        }
        let volume = Arc::clone(&self.volume);
        blocking(move || sweep_staging(&volume)).await?;
        verdict
    }

    async fn repair(&self) -> Result<Verdict, SyncError> {
        let Some(id) = self.current.clone() else { return Ok(Verdict::Sound) };
        let (volume, published) = (Arc::clone(&self.volume), id.clone());
        let found = blocking(move || {
            if volume.current()?.as_ref() != Some(&published) {
                return Ok(None);
            }
            let Some(manifest) = volume.manifest(&published) else { return Ok(None) };
            damaged(&volume, &published, &manifest).map(Some)
        });
        let Some(damaged) = found.await.map_err(SyncError::Volume)? else { return Ok(Verdict::Lost) };
        let (count, damaged) = (damaged.files.len(), Arc::new(damaged));
        let Some(first) = damaged.files.first() else { return Ok(Verdict::Sound) };
        tracing::warn!(release = %id, files = count, first = %first.path, "damaged, repairing");
        let staging = match self.source.url().kind() {
            Kind::Manifest => self.fetch_again(id, &damaged).await?,
            Kind::Archive(compression) => match self.unpack_again(id, compression, &damaged).await? {
                Some(staging) => staging,
                // The source has moved on, so the next sync replaces the damaged release.
                None => return Ok(Verdict::Lost),
            },
        };
        blocking(move || restore(&staging, &damaged)).await?;
        Ok(Verdict::Repaired(count))
    }

    async fn fetch_again(&self, id: ReleaseId, damaged: &Arc<Manifest>) -> Result<Arc<Staging>, SyncError> {
        let (volume, manifest) = (Arc::clone(&self.volume), Arc::clone(damaged));
        let staging = blocking(move || Staging::begin(volume, id, &manifest).map(Arc::new)).await?;
        let files: Vec<_> = (0..damaged.files.len()).collect();
        self.fetch_files(&staging, damaged, &files, Freshness::Cached).await?;
        Ok(staging)
    }

    async fn unpack_again(
        &self,
        id: ReleaseId,
        compression: Compression,
        damaged: &Arc<Manifest>,
    ) -> Result<Option<Arc<Staging>>, SyncError> {
        let opened = self.source.open(Freshness::Cached).await?;
        let (contents, manifest, _) = self.unpack(opened.body, compression).await?;
        if manifest.id() != id {
            return Ok(None);
        }
        self.stage_damaged(id, contents, manifest, damaged).await
    }

    /// Stages the damaged files of a release out of what has arrived; `None` where one of them has not.
    pub(super) async fn stage_damaged(
        &self,
        id: ReleaseId,
        contents: Contents,
        manifest: Manifest,
        damaged: &Arc<Manifest>,
    ) -> Result<Option<Arc<Staging>>, SyncError> {
        let (volume, damaged) = (Arc::clone(&self.volume), Arc::clone(damaged));
        let staged = blocking(move || {
            let staging = Staging::beside_unpacked(volume, id, &damaged)?;
            let paths: HashSet<_> = damaged.files.iter().map(|file| &file.path).collect();
            let is_damaged = |index: &usize| paths.contains(&manifest.files[*index].path);
            let wanted: Vec<_> = (0..manifest.files.len()).filter(is_damaged).collect();
            let placed = contents.place(&staging, &manifest, &wanted)?;
            Ok::<_, VolumeError>(placed.is_ok().then(|| Arc::new(staging)))
        });
        Ok(staged.await?)
    }
}
