//! The engine: brings one volume in step with one source.
//!
//! [`Engine::sync`] either leaves the volume in step with the content manager and says how, or leaves what was published as it
//! was and says why. What had arrived when a sync failed stays for the next one.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lifecycle::cgroup::memory_limit;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::error::SyncError;
use super::followed::Followed;
use super::http_gate::HttpGate;
use super::intake::Intake;
use super::options::EngineOptions;
use super::outcome::{Awaited, Interrupt, Outcome, Revision, Verdict};
use super::plan::{Plan, is_intact};
use super::publisher::{Candidate, Fetched, Publisher};
use super::remembered::{Memory, Remembered};
use super::seed_state::SeedState;
use super::trust::TrustPolicy;
use crate::content::{Digest, Manifest, ReleaseId};
use crate::fetch::{Downloader, Rules, download_all};
use crate::metrics::{Metrics, Phase, Retry};
use crate::progress::{Audience, Progress};
use crate::source::{
    Body, Change, Compression, Content, Freshness, Kind, Opened, SignatureError, Source, Validator,
};
use crate::store::{
    Clear, Need, Objects, Retention, SignedManifest, Staging, Verification, Volume, VolumeError, restore,
};

/// Keeps one volume in step with one source.
#[derive(Debug)]
pub(crate) struct Engine {
    intake: Intake,
    followed: Followed,
    /// What the archive has to be.
    digest: Option<Digest>,
    trust: Option<TrustPolicy>,
    publisher: Publisher,
    timeout: Option<Duration>,
    audience: Audience,
    memory: Memory,
    /// The release that is in place because of the source's last answer.
    last_answer: Option<Remembered>,
    /// Of the archive whose release the gate holds back.
    held: Option<Validator>,
    /// What the source answered when it was waited for, unless the token says that a caller wants a later answer.
    arrived: Option<(Opened, CancellationToken)>,
    verification: Option<Verification>,
}

impl Engine {
    /// Takes a volume's present state as the starting point.
    pub(crate) fn new(
        options: EngineOptions,
        source: Source,
        http_gate: Option<HttpGate>,
        volume: Volume,
        audience: Audience,
        metrics: Metrics,
    ) -> Result<Self, VolumeError> {
        let current = volume.current()?;
        let mut old = volume.complete_releases()?;
        old.retain(|(id, _)| current.as_ref() != Some(id));
        let memory = Memory::new(volume.path().to_owned(), source.url(), &options);
        let mut followed = Followed::new(source.url(), &options.selection, options.git, options.oci.platform);
        // It is an answer only while what it speaks of is in place, and intact.
        let is_in_place = |last: &Remembered| {
            current.as_ref() == Some(&last.release)
                && is_intact(&volume, &last.release)
                // A volume of an earlier version has none yet.
                && (options.authenticity.public_key.is_none() || volume.has_signature(&last.release).unwrap_or_default())
        };
        let last_answer = match (&mut followed, memory.load()) {
            (Followed::File, Some((kind, remembered))) => {
                source.was(kind);
                remembered.filter(is_in_place)
            }
            (Followed::Image(image), Some((Kind::Image, Some(remembered)))) if is_in_place(&remembered) => {
                image.was_published(remembered);
                None
            }
            // What is known of a commit is beside its objects.
            _ => None,
        };
        let volume = Arc::new(volume);
        let publisher = Publisher {
            volume: Arc::clone(&volume),
            limits: options.limits,
            gates: options.gates,
            http_gate,
            retention: Retention::new(options.retention, old),
            seed: SeedState::new(options.spare_from),
            metrics: metrics.clone(),
            current,
            // By an earlier process.
            has_staged: true,
            held: None,
        };
        let EngineOptions { selection, limits, unpacking, .. } = options;
        let rules = Rules { selection, limits, unpacking };
        Ok(Self {
            intake: Intake { source: Arc::new(source), volume, rules: Arc::new(rules), metrics },
            followed,
            digest: options.authenticity.digest,
            trust: TrustPolicy::new(&options.authenticity),
            publisher,
            timeout: options.sync_timeout,
            audience,
            memory,
            last_answer,
            held: None,
            arrived: None,
            verification: None,
        })
    }

    /// Brings the volume in step.
    pub(crate) async fn sync(&mut self) -> Result<Outcome, SyncError> {
        let arrived = self.arrived.take().filter(|(_, stop)| !stop.is_cancelled());
        let arrived = arrived.map(|(opened, _)| opened);
        let outcome = within(self.timeout, self.try_twice(arrived)).await;
        self.clear_after(&outcome);
        outcome
    }

    /// Waits until the source has something new for the next sync, or `stop`.
    pub(crate) async fn await_change(&mut self, stop: CancellationToken) -> Result<Awaited, SyncError> {
        let Some(known) = self.known()?.cloned() else { return Ok(Awaited::Unable) };
        self.intake.source.renew_to_wait().await?;
        let change = tokio::select! {
            change = self.intake.source.await_change(&known.validator) => change?,
            () = stop.cancelled() => return Ok(Awaited::Interrupted),
        };
        Ok(match change {
            Change::Arrived(opened) => {
                self.arrived = Some((opened, stop));
                Awaited::Changed
            }
            Change::None if self.known()?.is_some() => Awaited::Unchanged(known.release),
            // The volume has changed.
            Change::None => Awaited::Changed,
            Change::Cut(error) => Awaited::Cut(error.to_string()),
            Change::Unable => Awaited::Unable,
        })
    }

    /// The last answer of the source. "Not modified" is an answer only while what it speaks of is still in place.
    fn known(&self) -> Result<Option<&Remembered>, SyncError> {
        let current = self.intake.volume.current()?;
        Ok(self.last_answer.as_ref().filter(|last| current.as_ref() == Some(&last.release)))
    }

    /// The release that is published, as far as is known.
    pub(crate) fn current(&self) -> Option<&ReleaseId> {
        self.publisher.current.as_ref()
    }

    /// The server that it asks.
    pub(crate) fn source(&self) -> Arc<Source> {
        Arc::clone(&self.intake.source)
    }

    async fn try_twice(&mut self, arrived: Option<Opened>) -> Result<Outcome, SyncError> {
        self.intake.source.renew_credential().await?;
        match self.attempt_with_room(Freshness::Cached, arrived).await {
            // The content changed after its manifest was made, or a cache holds one of the two for longer. A second look
            // past all caches is likely to see both as they are now.
            Err(error @ (SyncError::Mismatch(_) | SyncError::Signature(SignatureError::Wrong { .. }))) => {
                tracing::info!(%error, "fetching the manifest again");
                self.intake.metrics.retried(Retry::Manifest);
                self.attempt_with_room(Freshness::Revalidated, None).await
            }
            outcome => outcome,
        }
    }

    /// Attempts it again where the volume was full and old releases have gone for it: what comes in one piece says how much space it takes
    /// only by taking it.
    async fn attempt_with_room(
        &mut self,
        freshness: Freshness,
        mut arrived: Option<Opened>,
    ) -> Result<Outcome, SyncError> {
        loop {
            match self.attempt(freshness, arrived.take()).await {
                Err(SyncError::Volume(full)) if full.is_full() => self.publisher.make_all_room(full)?,
                outcome => return outcome,
            }
        }
    }

    /// Gives back the space of what was staged.
    fn clear_after(&mut self, outcome: &Result<Outcome, SyncError>) {
        // A manifest's files are kept as objects, and it is not in memory when the next manifest comes. With --once, the gate
        // is asked once.
        if self.may_have_objects() || self.audience == Audience::Terminal {
            self.publisher.held = None;
        }
        let clear = match outcome {
            Ok(_) => Clear::All,
            Err(_) => self.not_needed_after(outcome),
        };
        self.publisher.clear(clear);
    }

    /// What was staged and is not needed after a sync that failed, or a verification. Objects stay, because the next sync can use them,
    /// unless space is what is short.
    fn not_needed_after<T>(&self, outcome: &Result<T, SyncError>) -> Clear {
        let min_free = self.intake.rules.limits.min_free;
        let keeps = self.may_have_objects()
            && !matches!(outcome, Err(SyncError::Volume(_)))
            && self.intake.volume.free().is_ok_and(|free| free >= min_free);
        if keeps { Clear::Attempt } else { Clear::All }
    }

    /// Whether what arrives is kept as objects: the files of a manifest, and a source that has not answered yet may be one.
    fn may_have_objects(&self) -> bool {
        self.intake.source.kind().is_none_or(|kind| kind == Kind::Manifest)
    }

    async fn attempt(&mut self, freshness: Freshness, arrived: Option<Opened>) -> Result<Outcome, SyncError> {
        let current = self.intake.volume.current()?;
        let (intake, publisher) = (&self.intake, &mut self.publisher);
        let outcome = match &mut self.followed {
            Followed::File => self.follow_file(current, freshness, arrived).await?,
            Followed::Repository(repository) => repository.follow(intake, publisher, current).await?,
            Followed::Image(image) => image.follow(intake, publisher, &self.memory, current).await?,
        };
        self.publisher.current = Some(outcome.release().clone());
        if matches!(outcome, Outcome::Published(_)) {
            self.verification = None;
        }
        Ok(outcome)
    }

    /// Follows a manifest or an archive.
    async fn follow_file(
        &mut self,
        current: Option<ReleaseId>,
        freshness: Freshness,
        arrived: Option<Opened>,
    ) -> Result<Outcome, SyncError> {
        let known = self.known()?.filter(|_| freshness == Freshness::Cached);
        let held = self.held.clone().filter(|_| self.publisher.is_holding());
        let opened = match (arrived, held, known) {
            (Some(arrived), ..) => arrived,
            (None, Some(held), _) => match self.intake.source.open_if_changed(&held).await? {
                None => match self.publisher.ask_again(current.clone()).await {
                    Some(outcome) => return self.remember(Kind::Archive, held, outcome),
                    None => self.intake.source.open(freshness).await?,
                },
                Some(opened) => opened,
            },
            (None, None, None) => self.intake.source.open(freshness).await?,
            (None, None, Some(last)) => match self.intake.source.open_if_changed(&last.validator).await? {
                None => return Ok(Outcome::Unchanged(last.release.clone())),
                Some(opened) => opened,
            },
        };
        let kind = opened.content.kind();
        let outcome = match opened.content {
            Content::Manifest => self.follow_manifest(opened.body, current, freshness).await,
            Content::Archive(compression) => self.follow_archive(opened.body, compression, current).await,
        };
        let outcome = outcome.map_err(|error| match opened.unlike {
            None => error,
            Some(answer) => error.with_answer(self.intake.source.url(), answer),
        });
        self.remember(kind, opened.validator, outcome)
    }

    /// Remembers what the source has answered, and what came of it.
    fn remember(
        &mut self,
        kind: Kind,
        validator: Validator,
        outcome: Result<Outcome, SyncError>,
    ) -> Result<Outcome, SyncError> {
        self.held = outcome.as_ref().is_err_and(SyncError::is_held_back).then(|| validator.clone());
        let outcome = outcome?;
        let answer = Remembered { release: outcome.release().clone(), kind, validator };
        let (before, date_for) = (self.last_answer.as_ref(), self.intake.source.date_for());
        let is_new = before.is_none_or(|before| answer.validator.replaces(&before.validator, date_for));
        if is_new || matches!(outcome, Outcome::Published(_)) {
            self.memory.store(&answer);
        }
        self.last_answer = Some(answer);
        Ok(outcome)
    }

    /// What the published release is in its source, where that has names for its states.
    pub(super) fn revision(&self) -> Option<Revision> {
        self.followed.revision()
    }

    /// Makes the next sync compare the volume with the source, whether or not that has changed.
    fn distrust(&mut self) {
        self.last_answer = None;
        self.followed.distrust();
    }

    /// A manifest says what the release is, so only what the volume lacks is fetched.
    async fn follow_manifest(
        &mut self,
        body: Body,
        current: Option<ReleaseId>,
        freshness: Freshness,
    ) -> Result<Outcome, SyncError> {
        let began = Instant::now();
        let json = self.intake.source.read_manifest(body).await?;
        let signature = match &self.trust {
            Some(trust) => Some(trust.verify_signature(&self.intake.source, &json, freshness).await?),
            None => None,
        };
        Manifest::check_memory(json.len() as u64, memory_limit())?;
        let signed = signature
            .map(|signature| self.publisher.record(current.as_ref(), &json, &signature))
            .transpose()?
            .flatten();
        let manifest = Arc::new(Manifest::consume(json, &self.intake.rules.limits)?);
        self.intake.source.base().covers(&manifest)?;
        if let Some(trust) = &self.trust {
            trust.check_scope(&manifest)?;
        }
        let (id, plan) = self.publisher.plan(&manifest, current.as_ref())?;
        if let Some(trust) = &self.trust {
            trust.reject_rollback(&self.intake.volume, &manifest)?;
        }
        self.intake.metrics.phase(Phase::Plan, began);
        let outcome = match plan {
            Plan::InStep => {
                self.replace_manifest(&id, signed)?;
                Outcome::Unchanged(id)
            }
            Plan::Repoint => {
                self.replace_manifest(&id, signed)?;
                let (manifest, fetched) = (Arc::clone(&manifest), Fetched::default());
                let candidate = Candidate { id, manifest, staging: None, commit: None, fetched };
                self.publisher.publish(candidate, current).await?
            }
            Plan::Assemble(assembly) => {
                let objects = self.publisher.objects()?;
                let (mut staging, refused) = self.publisher.begin(&id, &manifest, &assembly)?;
                let signed = match signed {
                    // The current release has it, and is put together again.
                    None if self.trust.is_some() => Some(SignedManifest::copy(&self.intake.volume, &id)?),
                    signed => signed,
                };
                if let Some(signed) = signed {
                    staging.sign(signed)?;
                }
                let staging = Arc::new(staging);
                let mut files = [assembly.fetch, refused].concat();
                // In the manifest's order, so that requests and their log read like it.
                files.sort_unstable();
                let fetched = self.fetch(&staging, &objects, &manifest, &files, freshness).await?;
                let (manifest, staging) = (Arc::clone(&manifest), Some(staging));
                let candidate = Candidate { id, manifest, staging, commit: None, fetched };
                self.publisher.publish(candidate, current).await?
            }
        };
        if let Some(trust) = &mut self.trust {
            trust.accept(&manifest);
        }
        Ok(outcome)
    }

    /// An archive says what it is only once it is unpacked: what the volume has already is linked then.
    async fn follow_archive(
        &mut self,
        body: Body,
        compression: Compression,
        current: Option<ReleaseId>,
    ) -> Result<Outcome, SyncError> {
        self.publisher.begin_arrival(body.announced().unwrap_or(0))?;
        let (contents, manifest, wire_bytes) = self.intake.unpack(body, compression, self.digest).await?;
        // Of an answer that is encoded, only this shows it.
        self.intake.source.was(Kind::Archive);
        self.publisher.publish_contents(contents, manifest, wire_bytes, current, None).await
    }

    /// Puts these files in their places: fetches the content of each, once, unless it has arrived before.
    async fn fetch(
        &mut self,
        staging: &Arc<Staging>,
        objects: &Objects,
        manifest: &Arc<Manifest>,
        files: &[usize],
        freshness: Freshness,
    ) -> Result<Fetched, SyncError> {
        let began = Instant::now();
        let mut asked = HashSet::new();
        let mut missing = Vec::new();
        for index in files {
            let file = &manifest.files[*index];
            if asked.insert(file.content()) && !objects.has(file) {
                missing.push(*index);
            }
        }
        drop(asked);
        let bytes = missing.iter().map(|index| manifest.files[*index].size).sum();
        let fetched = Fetched { files: missing.len(), bytes };
        let sizes = missing.iter().map(|index| manifest.files[*index].size);
        self.publisher.make_room(&Need::new(&self.intake.volume, sizes, manifest.directories().len()))?;
        let id = staging.id();
        tracing::info!(release = %id, to_fetch = missing.len(), of = manifest.files.len(), "staging");
        if !missing.is_empty() {
            let downloader = Downloader {
                source: Arc::clone(&self.intake.source),
                manifest: Arc::clone(manifest),
                freshness,
                metrics: self.intake.metrics.clone(),
            };
            let progress = Progress::begin(self.audience, missing.len(), Some(id.clone()));
            download_all(downloader, staging, &missing, self.intake.source.concurrency(), progress).await?;
        }
        let of = |index: &usize| &manifest.files[*index];
        staging.install(objects, files.iter().map(of), missing.iter().map(of))?;
        self.intake.metrics.phase(Phase::Fetch, began);
        Ok(fetched)
    }

    /// Re-reads the published release and puts right what is damaged. An error says why that was not possible; the next sync then
    /// puts the whole release together again.
    pub(crate) async fn verify(&mut self, interrupt: &Interrupt) -> Result<Verdict, SyncError> {
        let verdict = self.verify_current(interrupt).await;
        if !matches!(verdict, Ok(Verdict::Sound | Verdict::Interrupted)) {
            self.publisher.discard_seed();
        }
        if !matches!(verdict, Ok(Verdict::Sound | Verdict::Interrupted | Verdict::Repaired(_))) {
            self.distrust();
        }
        // What a sync that failed before has fetched is kept as well.
        self.publisher.clear(self.not_needed_after(&verdict));
        verdict
    }

    async fn verify_current(&mut self, interrupt: &Interrupt) -> Result<Verdict, SyncError> {
        let Some(id) = self.publisher.current.clone() else { return Ok(Verdict::Sound) };
        if self.intake.volume.current()?.as_ref() != Some(&id) {
            return Ok(Verdict::Lost);
        }
        let Some(manifest) = self.intake.volume.manifest(&id) else { return Ok(Verdict::Lost) };
        let goes_on = self.verification.take().filter(|verification| *verification.release() == id);
        let mut verification = goes_on.unwrap_or_else(|| Verification::new(id.clone()));
        let stop = || interrupt.reading.is_cancelled();
        let Some(damaged) = verification.run(&self.intake.volume, &manifest, stop)? else {
            self.verification = Some(verification);
            return Ok(Verdict::Interrupted);
        };
        drop(manifest);
        let Some(first) = damaged.files.first() else { return Ok(Verdict::Sound) };
        tracing::warn!(release = %id, files = damaged.files.len(), first = %first.path, "damaged, repairing");
        self.publisher.discard_seed();
        let repair = Box::pin(within(self.timeout, self.repair(id, Arc::new(damaged))));
        let repaired = interrupt.repair.run_until_cancelled(repair).await;
        repaired.unwrap_or_else(|| {
            self.verification = Some(verification);
            Ok(Verdict::Interrupted)
        })
    }

    /// Fetches the damaged files of the published release, and puts them in their places.
    async fn repair(&mut self, id: ReleaseId, damaged: Arc<Manifest>) -> Result<Verdict, SyncError> {
        self.intake.source.renew_credential().await?;
        let (intake, publisher) = (&self.intake, &mut self.publisher);
        let staged = match &mut self.followed {
            Followed::Repository(repository) => {
                repository.stage_damaged(intake, publisher, &id, &damaged).await?.map(Arc::new)
            }
            Followed::Image(image) => {
                image.stage_damaged(intake, publisher, &id, &damaged).await?.map(Arc::new)
            }
            Followed::File if intake.source.kind() == Some(Kind::Manifest) => {
                Some(self.fetch_damaged(&id, &damaged).await?)
            }
            Followed::File => {
                let opened = intake.source.open(Freshness::Cached).await?;
                let Content::Archive(compression) = opened.content else { return Ok(Verdict::Lost) };
                publisher.begin_arrival(opened.body.announced().unwrap_or(0))?;
                let (contents, manifest, _) = intake.unpack(opened.body, compression, self.digest).await?;
                publisher.stage_damaged(&id, contents, &manifest, &damaged)?.map(Arc::new)
            }
        };
        // The source may have moved on; then the next sync replaces the damaged release.
        let Some(staging) = staged else { return Ok(Verdict::Lost) };
        let _published = restore(&staging, &damaged)?;
        Ok(Verdict::Repaired(damaged.files.len()))
    }

    async fn fetch_damaged(
        &mut self,
        id: &ReleaseId,
        damaged: &Arc<Manifest>,
    ) -> Result<Arc<Staging>, SyncError> {
        let objects = self.publisher.objects()?;
        let files: Vec<_> = (0..damaged.files.len()).collect();
        let staging = Arc::new(Staging::begin(&self.intake.volume, id, damaged)?);
        self.fetch(&staging, &objects, damaged, &files, Freshness::Cached).await?;
        Ok(staging)
    }

    /// Notes on the volume how far the content manager has come, for a release that is on it already. Before anything points
    /// at the release: a crash in between must not let older content be accepted.
    fn replace_manifest(&self, id: &ReleaseId, signed: Option<SignedManifest>) -> Result<(), VolumeError> {
        match signed {
            Some(signed) => signed.replace(&self.intake.volume, id),
            None => Ok(()),
        }
    }

    /// Does what can wait until a sync is answered: removes the old releases whose time has come, and makes the seed tree.
    pub(crate) fn upkeep(&mut self) {
        self.publisher.remove_expired();
        // An archive's files all arrive again, so it has no use for a seed tree.
        if self.intake.source.kind() == Some(Kind::Manifest) && self.audience == Audience::Log {
            self.publisher.prepare_seed();
        }
    }
}

/// Gives some work up where it takes longer than `--sync-timeout`.
async fn within<T>(
    limit: Option<Duration>,
    work: impl Future<Output = Result<T, SyncError>>,
) -> Result<T, SyncError> {
    let Some(limit) = limit else { return work.await };
    timeout(limit, work).await.unwrap_or_else(|_| Err(SyncError::Timeout(humantime::format_duration(limit))))
}
