//! The engine: brings one volume in step with one source.
//!
//! [`Engine::sync`] either leaves the volume in step with the content manager and says how, or leaves what was published as it
//! was and says why. What had arrived when a sync failed stays for the next one.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use lifecycle::cgroup::memory_limit;
use lifecycle::{blocking, units};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::assemble::{begin, link};
use super::error::SyncError;
use super::gate::Gates;
use super::git::{Incomplete, Repository, is_of};
use super::http_gate::{Candidate, HttpGate};
use super::image::{ImageSource, Received};
use super::intake::Intake;
use super::outcome::{Awaited, Outcome, Publication, Verdict};
use super::plan::{Assembly, Plan, plan, whole};
use super::remembered::{Memory, Remembered};
use super::revision::{CurrentRevision, Revision};
use super::seed_state::SeedState;
use super::trust::{Authenticity, TrustPolicy};
use crate::content::{Digest, Limits, Manifest, ReleaseId, Selection};
use crate::fetch::{Contents, Downloader, NotArrived, Unpacking, download_all, feed, pump, unpack};
use crate::git::{self, Commit, GitOptions, Known, Tip};
use crate::metrics::{Metrics, Phase, Retry};
use crate::oci::{OciOptions, Registry, RegistryError};
use crate::progress::{Audience, Progress};
use crate::source::{
    Answer, Body, Change, Compression, Content, Freshness, Kind, Opened, SignatureError, Source,
};
use crate::store::{
    Clear, DirectoryOptions, Need, Objects, Published, RELEASES, Retention, RetentionPolicy, Room,
    SignedManifest, Staging, Verification, Volume, VolumeError, check_room, clear, point_at, publish,
    remove_release, restore,
};

/// What a release has to be, and how it is kept.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct EngineOptions {
    // Below this, linking takes less than ten milliseconds.
    /// Keep a hard-linked copy ready for releases of N or more files, so that a small change is published sooner
    #[arg(long, value_name = "N", default_value = "1000")]
    spare_from: usize,

    #[command(flatten)]
    pub(crate) directories: DirectoryOptions,

    /// Give up a sync after this time; by default, only --read-timeout and --min-throughput limit it
    #[arg(long, value_name = "DURATION", value_parser = units::positive_duration)]
    sync_timeout: Option<Duration>,

    #[command(flatten)]
    pub(crate) gates: Gates,

    #[command(flatten)]
    retention: RetentionPolicy,

    #[command(flatten)]
    selection: Selection,

    #[command(flatten)]
    unpacking: Unpacking,

    #[command(flatten)]
    git: GitOptions,

    #[command(flatten)]
    oci: OciOptions,

    #[command(flatten)]
    pub(crate) authenticity: Authenticity,

    #[command(flatten)]
    pub(crate) limits: Limits,
}

/// Keeps one volume in step with one source.
#[derive(Debug)]
pub(crate) struct Engine {
    source: Arc<Source>,
    volume: Arc<Volume>,
    limits: Limits,
    selection: Selection,
    unpacking: Unpacking,
    followed: Followed,
    revision: CurrentRevision,
    /// What the archive has to be.
    digest: Option<Digest>,
    trust: Option<TrustPolicy>,
    gates: Gates,
    http_gate: Option<HttpGate>,
    timeout: Option<Duration>,
    audience: Audience,
    retention: Retention,
    seed: SeedState,
    metrics: Metrics,
    /// The release that is served as far as we know.
    current: Option<ReleaseId>,
    memory: Memory,
    /// The release that is in place because of the source's last answer.
    last_answer: Option<Remembered>,
    /// What the source answered when it was waited for, unless the token says that somebody wants a later answer.
    arrived: Option<(Opened, CancellationToken)>,
    verification: Option<Verification>,
    /// Whether there may be something in the private directory that a sync has to clear away.
    has_staged: bool,
}

/// What is followed, and what is remembered of it from one sync to the next.
#[derive(Debug)]
enum Followed {
    /// A manifest or an archive.
    File,
    Repository(Repository),
    Image(ImageSource),
}

/// Files that a sync brought over the network.
#[derive(Debug, Clone, Copy, Default)]
struct Fetched {
    files: usize,
    bytes: u64,
}

impl Engine {
    /// Takes a volume's present state as the starting point.
    pub(crate) fn new(
        options: &EngineOptions,
        source: Source,
        http_gate: Option<HttpGate>,
        volume: Volume,
        audience: Audience,
        metrics: Metrics,
    ) -> Result<Self, VolumeError> {
        let current = volume.current()?;
        let mut old = volume.complete_releases()?;
        old.retain(|(id, _)| current.as_ref() != Some(id));
        let EngineOptions {
            spare_from,
            sync_timeout,
            gates,
            retention,
            selection,
            unpacking,
            git,
            oci,
            authenticity,
            limits,
            ..
        } = options.clone();
        let followed = match (source.url().kind(), source.url().image()) {
            (Some(Kind::Repository), _) => Followed::Repository(Repository::new(git)),
            (Some(Kind::Image), Some(image)) => {
                Followed::Image(ImageSource::new(Registry::new(image.clone(), oci.platform)))
            }
            _ => Followed::File,
        };
        let memory = Memory::new(volume.path().to_owned(), source.url(), &authenticity, &selection);
        let remembered = memory.load().filter(|_| matches!(followed, Followed::File));
        let last_answer = remembered.and_then(|(kind, remembered)| {
            source.was(kind);
            // It is an answer only while what it speaks of is in place, and intact.
            remembered.filter(|last| {
                current.as_ref() == Some(&last.release)
                    && is_intact(&volume, &last.release)
                    // A volume of an earlier version has none yet.
                    && (authenticity.public_key.is_none() || volume.has_signature(&last.release))
            })
        });
        Ok(Self {
            current,
            source: Arc::new(source),
            volume: Arc::new(volume),
            limits,
            selection,
            unpacking,
            followed,
            revision: CurrentRevision::default(),
            digest: authenticity.digest,
            trust: TrustPolicy::new(&authenticity),
            gates,
            http_gate,
            timeout: sync_timeout,
            audience,
            retention: Retention::new(retention, old),
            seed: SeedState::new(spare_from),
            metrics,
            memory,
            last_answer,
            arrived: None,
            verification: None,
            has_staged: true,
        })
    }

    /// Brings the volume in step.
    pub(crate) async fn sync(&mut self) -> Result<Outcome, SyncError> {
        let arrived = self.arrived.take().filter(|(_, stop)| !stop.is_cancelled());
        let arrived = arrived.map(|(opened, _)| opened);
        let outcome = match self.timeout {
            None => self.try_twice(arrived).await,
            Some(limit) => match timeout(limit, self.try_twice(arrived)).await {
                Ok(outcome) => outcome,
                Err(_) => Err(SyncError::Timeout(humantime::format_duration(limit))),
            },
        };
        self.clear_after(&outcome);
        outcome
    }

    /// Waits until the source has something new for the next sync, or `stop`.
    pub(crate) async fn await_change(&mut self, stop: CancellationToken) -> Result<Awaited, SyncError> {
        let Some(known) = self.known()?.cloned() else { return Ok(Awaited::Unable) };
        self.source.renew_credential().await?;
        let change = tokio::select! {
            change = self.source.await_change(&known.validator) => change?,
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
        let current = self.volume.current()?;
        Ok(self.last_answer.as_ref().filter(|last| current.as_ref() == Some(&last.release)))
    }

    /// Whom it asks.
    pub(super) fn source(&self) -> Arc<Source> {
        Arc::clone(&self.source)
    }

    async fn try_twice(&mut self, arrived: Option<Opened>) -> Result<Outcome, SyncError> {
        self.source.renew_credential().await?;
        match self.attempt(Freshness::Cached, arrived).await {
            // The content changed after its manifest was made, or a cache holds one of the two for longer. A second look
            // past all caches is likely to see both as they are now.
            Err(error @ (SyncError::Mismatch(_) | SyncError::Signature(SignatureError::Wrong { .. }))) => {
                tracing::info!(%error, "fetching the manifest again");
                self.metrics.retried(Retry::Manifest);
                self.attempt(Freshness::Revalidated, None).await
            }
            outcome => outcome,
        }
    }

    /// Gives back the space of what was staged. Objects stay after a failure, because the next sync can use them, unless space
    /// is what was short.
    fn clear_after(&mut self, outcome: &Result<Outcome, SyncError>) {
        if !self.has_staged {
            return;
        }
        let is_manifest = self.source.kind() == Some(Kind::Manifest);
        let keep = match outcome {
            Ok(_) | Err(SyncError::Volume(_)) => false,
            Err(_) => is_manifest && self.volume.free().is_ok_and(|free| free >= self.limits.min_free),
        };
        match clear(&self.volume, if keep { Clear::Attempt } else { Clear::All }) {
            Ok(()) => self.has_staged = keep,
            Err(error) => tracing::warn!(%error, "staging not cleaned up; will retry"),
        }
    }

    async fn attempt(&mut self, freshness: Freshness, arrived: Option<Opened>) -> Result<Outcome, SyncError> {
        let current = self.volume.current()?;
        let (id, outcome) = match self.followed {
            Followed::File => self.follow_file(current, freshness, arrived).await?,
            Followed::Repository(_) => self.follow_repository(current).await?,
            Followed::Image(_) => self.follow_image(current).await?,
        };
        self.current = Some(id.clone());
        Ok(outcome)
    }

    /// Follows a manifest or an archive.
    async fn follow_file(
        &mut self,
        current: Option<ReleaseId>,
        freshness: Freshness,
        arrived: Option<Opened>,
    ) -> Result<(ReleaseId, Outcome), SyncError> {
        let known = self.known()?.filter(|_| freshness == Freshness::Cached);
        let opened = match (arrived, known) {
            (Some(arrived), _) => arrived,
            (None, None) => self.source.open(freshness).await?,
            (None, Some(last)) => match self.source.open_if_changed(&last.validator).await? {
                None => {
                    let id = last.release.clone();
                    return Ok((id.clone(), Outcome::Unchanged(id)));
                }
                Some(opened) => opened,
            },
        };
        let kind = opened.content.kind();
        let (id, outcome) = match opened.content {
            Content::Manifest => self.follow_manifest(opened.body, opened.unlike, current, freshness).await?,
            Content::Archive(compression) => self.follow_archive(opened.body, compression, current).await?,
        };
        let answer = Remembered { release: id.clone(), kind, validator: opened.validator };
        if self.last_answer.is_none() || matches!(outcome, Outcome::Published(_)) {
            self.memory.store(&answer);
        }
        self.last_answer = Some(answer);
        Ok((id, outcome))
    }

    /// Follows a git repository.
    async fn follow_repository(
        &mut self,
        current: Option<ReleaseId>,
    ) -> Result<(ReleaseId, Outcome), SyncError> {
        let intake = self.intake();
        let repository = self.repository()?;
        let origin = repository.origin(&intake);
        let tip = repository.tip(&intake.source).await?;
        if let Some(id) = current.clone().filter(|id| repository.is_in_step(&tip, &origin, id)) {
            return Ok((id.clone(), Outcome::Unchanged(id)));
        }
        let volume = Arc::clone(&intake.volume);
        let known =
            blocking(move || Known::load(&volume)).await.filter(|known| known.published.origin == origin);
        // After a start, or when the release was damaged: the commit is right, but is the release?
        if let (Some(known), Some(id)) = (&known, &current)
            && is_of(&known.published, &tip, &origin, id)
            && is_intact(&intake.volume, id)
        {
            self.follows_commit(known.published.clone())?;
            return Ok((id.clone(), Outcome::Unchanged(id.clone())));
        }
        match self.publish_commit(&intake, &tip, known, current.clone()).await {
            // A file that came from outside of what is published, or a release that is gone: then everything is fetched.
            Err(Incomplete::Missing(what)) => {
                tracing::info!(%what, "not on the volume any more, so the whole commit is fetched");
                let published = self.publish_commit(&intake, &tip, None, current).await;
                published.map_err(Incomplete::into_error)
            }
            Err(Incomplete::Failed(error)) => Err(error),
            Ok(done) => Ok(done),
        }
    }

    async fn publish_commit(
        &mut self,
        intake: &Intake,
        tip: &Tip,
        known: Option<Known>,
        current: Option<ReleaseId>,
    ) -> Result<(ReleaseId, Outcome), Incomplete> {
        let began = Instant::now();
        self.begin_staging()?;
        let (commit, wire_bytes) = self.repository()?.receive(intake, tip, known).await?;
        self.metrics.phase(Phase::Unpack, began);
        let id = commit.id();
        let Commit { contents, manifest, trace, .. } = commit;
        let name = id.to_string();
        let followed = self.follow_contents(contents, &manifest, wire_bytes, current, Some(&name)).await?;
        let (release, outcome) = followed.map_err(|NotArrived(path)| {
            Incomplete::Missing(SyncError::Repository(format!("{path} is not in what was sent")))
        })?;
        let published = git::Published::new(&self.repository()?.origin(intake), &id, &release);
        // The release is in place; without this, the next fetch only brings more.
        if let Err(error) = trace.keep(&published) {
            tracing::warn!(%error, "the next fetch will bring the whole commit");
        }
        self.follows_commit(published)?;
        Ok((release, outcome))
    }

    /// Notes which commit `current` is.
    fn follows_commit(&mut self, published: git::Published) -> Result<(), SyncError> {
        self.revision.set(Revision::Commit(published.commit.clone()));
        self.repository()?.published(published);
        Ok(())
    }

    /// Follows an image in a registry.
    async fn follow_image(&mut self, current: Option<ReleaseId>) -> Result<(ReleaseId, Outcome), SyncError> {
        let intake = self.intake();
        let in_step = self.image()?.is_in_step(&intake.source, current.as_ref()).await?;
        if let Some(id) = current.clone().filter(|_| in_step) {
            return Ok((id.clone(), Outcome::Unchanged(id)));
        }
        let began = Instant::now();
        let Received { digest, contents, manifest, wire_bytes } = self.receive_image(&intake).await?;
        self.metrics.phase(Phase::Unpack, began);
        let followed = self.follow_contents(contents, &manifest, wire_bytes, current, None).await?;
        // Every file of an image arrives with it.
        let (id, outcome) =
            followed.map_err(|NotArrived(path)| RegistryError::Refused(format!("{path} was not in it")))?;
        self.revision.set(Revision::Digest(format!("sha256:{digest}")));
        self.image()?.published(digest, id.clone());
        Ok((id, outcome))
    }

    async fn receive_image(&mut self, intake: &Intake) -> Result<Received, SyncError> {
        let (digest, layers) = self.image()?.layers(intake).await?;
        self.begin_staging()?;
        self.image()?.receive(intake, digest, &layers).await
    }

    fn intake(&self) -> Intake {
        Intake {
            source: Arc::clone(&self.source),
            volume: Arc::clone(&self.volume),
            selection: self.selection.clone(),
            limits: self.limits,
            unpacking: self.unpacking,
            metrics: self.metrics.clone(),
        }
    }

    fn repository(&mut self) -> Result<&mut Repository, SyncError> {
        match &mut self.followed {
            Followed::Repository(repository) => Ok(repository),
            Followed::File | Followed::Image(_) => {
                Err(SyncError::Repository("no repository is followed".to_owned()))
            }
        }
    }

    fn image(&mut self) -> Result<&mut ImageSource, SyncError> {
        match &mut self.followed {
            Followed::Image(image) => Ok(image),
            Followed::File | Followed::Repository(_) => {
                Err(RegistryError::Refused("no image is followed".to_owned()).into())
            }
        }
    }

    /// What the published release is in its source, where that has names for its states.
    pub(super) fn current_revision(&self) -> CurrentRevision {
        self.revision.clone()
    }

    /// Makes the next sync compare the volume with the source, whether or not that has changed.
    fn distrust(&mut self) {
        self.last_answer = None;
        match &mut self.followed {
            Followed::File => {}
            Followed::Repository(repository) => repository.distrust(),
            Followed::Image(image) => image.distrust(),
        }
    }

    /// A manifest says what the release is, so only what the volume lacks is fetched.
    async fn follow_manifest(
        &mut self,
        body: Body,
        unlike: Option<Box<Answer>>,
        current: Option<ReleaseId>,
        freshness: Freshness,
    ) -> Result<(ReleaseId, Outcome), SyncError> {
        let began = Instant::now();
        let json = self.source.read_manifest(body).await?;
        let signature = match &self.trust {
            Some(trust) => Some(trust.verify_signature(&self.source, &json, freshness).await?),
            None => None,
        };
        Manifest::check_memory(json.len() as u64, memory_limit())?;
        let manifest = Manifest::parse(&json, &self.limits).map_err(|error| match unlike {
            None => SyncError::Manifest(error),
            Some(answer) => SyncError::NotManifest { error, url: self.source.url().to_string(), answer },
        })?;
        let manifest = Arc::new(manifest);
        self.source.base().covers(&manifest)?;
        if let Some(trust) = &self.trust {
            trust.check_scope(&manifest)?;
        }
        let signed =
            signature.map(|signature| self.record(&manifest.id(), &json, &signature)).transpose()?.flatten();
        drop(json);
        let (id, plan) = self.plan(&manifest, current.as_ref())?;
        if let Some(trust) = &self.trust {
            trust.reject_rollback(&self.volume, &manifest)?;
        }
        self.metrics.phase(Phase::Plan, began);
        let outcome = match plan {
            Plan::InStep => {
                self.replace_manifest(&id, signed)?;
                Outcome::Unchanged(id.clone())
            }
            Plan::Repoint => {
                self.replace_manifest(&id, signed)?;
                self.repoint(&id, &manifest, current, None).await?
            }
            Plan::Assemble(assembly) => {
                let objects = self.objects()?;
                let fetched = self.fetch(&objects, &id, &manifest, &assembly.fetch, freshness).await?;
                self.assemble(&objects, &id, (&manifest, signed), assembly, (current, fetched), freshness)
                    .await?
            }
        };
        if let Some(trust) = &mut self.trust {
            trust.accept(&manifest);
        }
        Ok((id, outcome))
    }

    /// An archive says what it is only once it is unpacked: what the volume has already is linked then.
    async fn follow_archive(
        &mut self,
        body: Body,
        compression: Compression,
        current: Option<ReleaseId>,
    ) -> Result<(ReleaseId, Outcome), SyncError> {
        let (contents, manifest, wire_bytes) = self.unpack(body, compression).await?;
        let followed = self.follow_contents(contents, &manifest, wire_bytes, current, None).await?;
        // Every file of an archive arrives with it.
        followed.map_err(|NotArrived(path)| SyncError::Archive(format!("{path} was not in it")))
    }

    /// Publishes what has arrived in one piece, unless it is published already.
    async fn follow_contents(
        &mut self,
        contents: Contents,
        manifest: &Manifest,
        wire_bytes: u64,
        current: Option<ReleaseId>,
        commit: Option<&str>,
    ) -> Result<Result<(ReleaseId, Outcome), NotArrived>, SyncError> {
        manifest.check_directories(&self.limits).map_err(SyncError::Archive)?;
        let (id, plan) = self.plan(manifest, current.as_ref())?;
        let outcome = match plan {
            Plan::InStep => Outcome::Unchanged(id.clone()),
            Plan::Repoint => self.repoint(&id, manifest, current, commit).await?,
            Plan::Assemble(Assembly { link: links, mut fetch, .. }) => {
                let began = Instant::now();
                // What has arrived is on the volume already.
                self.make_room(&Need::new(&self.volume, std::iter::empty(), manifest.directories().len()))?;
                let staging = Staging::begin(&self.volume, &id, manifest)?;
                fetch.extend(link(&staging, &links, manifest)?);
                if let Err(not_arrived) = contents.place(&staging, manifest, &fetch)? {
                    return Ok(Err(not_arrived));
                }
                self.pass_gate(&id, staging.directory(), commit).await?;
                let published = publish(&staging, current.as_ref())?;
                self.metrics.phase(Phase::Publish, began);
                let fetched = Fetched { files: fetch.len(), bytes: wire_bytes };
                self.published(&published, &id, manifest, current, fetched)
            }
        };
        Ok(Ok((id, outcome)))
    }

    /// Asks the operator's own gate about a release; its tree and its manifest lie in this directory.
    async fn pass_gate(
        &self,
        id: &ReleaseId,
        directory: &Path,
        commit: Option<&str>,
    ) -> Result<(), SyncError> {
        let Some(gate) = &self.http_gate else { return Ok(()) };
        let source = self.source.url().to_string();
        let (tree, manifest) = (directory.join(id.as_str()), directory.join(format!("{id}.json")));
        let candidate = Candidate { release: id, source: &source, commit, tree: &tree, manifest: &manifest };
        Ok(gate.ask(candidate).await?)
    }

    /// Compares a manifest with what is on the volume; what would change has to pass the gates.
    fn plan(&self, manifest: &Manifest, current: Option<&ReleaseId>) -> Result<(ReleaseId, Plan), SyncError> {
        let id = manifest.id();
        let plan = plan(&self.volume, &id, manifest, self.seed.base())?;
        if !matches!(plan, Plan::InStep) {
            self.gates.check(manifest, || current.and_then(|id| self.volume.manifest(id)))?;
        }
        Ok((id, plan))
    }

    /// Keeps a signed manifest as it is until its release is in place, unless the volume has it already.
    fn record(
        &mut self,
        id: &ReleaseId,
        json: &[u8],
        signature: &[u8],
    ) -> Result<Option<SignedManifest>, SyncError> {
        if SignedManifest::is_recorded(&self.volume, id, json, signature) {
            return Ok(None);
        }
        self.has_staged = true;
        Ok(Some(SignedManifest::write(&self.volume, json, signature)?))
    }

    /// Notes on the volume how far the content manager has come, for a release that is on it already. Before anything points
    /// at the release: a crash in between must not let older content be accepted.
    fn replace_manifest(&self, id: &ReleaseId, signed: Option<SignedManifest>) -> Result<(), SyncError> {
        match signed {
            Some(signed) => Ok(signed.replace(&self.volume, id)?),
            None => Ok(()),
        }
    }

    async fn repoint(
        &mut self,
        id: &ReleaseId,
        manifest: &Manifest,
        current: Option<ReleaseId>,
        commit: Option<&str>,
    ) -> Result<Outcome, SyncError> {
        self.pass_gate(id, &self.volume.path().join(RELEASES), commit).await?;
        let published = point_at(&self.volume, id, current.as_ref())?;
        Ok(self.published(&published, id, manifest, current, Fetched::default()))
    }

    /// Clears what an earlier attempt has left.
    fn begin_staging(&mut self) -> Result<(), SyncError> {
        self.has_staged = true;
        Ok(clear(&self.volume, Clear::Attempt)?)
    }

    fn objects(&mut self) -> Result<Arc<Objects>, SyncError> {
        self.begin_staging()?;
        Ok(Objects::open(&self.volume)?)
    }

    /// Fetches the content of these files, each once, unless it has arrived before.
    async fn fetch(
        &mut self,
        objects: &Arc<Objects>,
        id: &ReleaseId,
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
        self.make_room(&Need::new(&self.volume, sizes, manifest.directories().len()))?;
        tracing::info!(release = %id, to_fetch = missing.len(), of = manifest.files.len(), "staging");
        if !missing.is_empty() {
            let downloader = Downloader {
                source: Arc::clone(&self.source),
                manifest: Arc::clone(manifest),
                freshness,
                metrics: self.metrics.clone(),
            };
            let progress = Progress::begin(self.audience, missing.len(), Some(id.clone()));
            download_all(downloader, objects, &missing, self.source.concurrency(), progress).await?;
        }
        self.metrics.phase(Phase::Fetch, began);
        Ok(fetched)
    }

    /// Makes sure that a release fits on the volume. Old releases go early for it, but not before readers had their time.
    fn make_room(&mut self, need: &Need) -> Result<(), SyncError> {
        let room = Room { min_free: self.limits.min_free, max_volume_size: self.retention.max_volume_size() };
        loop {
            let Err(short) = check_room(&self.volume, need, room, self.current.as_ref()) else {
                return Ok(());
            };
            let Some(id) = self.retention.oldest_expendable(SystemTime::now()) else {
                return Err(short.into());
            };
            tracing::info!(release = %id, "old release removed early, because space is short");
            remove_release(&self.volume, &id)?;
            self.retention.forget(&id);
        }
    }

    /// Unpacks what arrives while it arrives, and returns how many bytes that were.
    async fn unpack(
        &mut self,
        body: Body,
        compression: Compression,
    ) -> Result<(Contents, Manifest, u64), SyncError> {
        let began = Instant::now();
        self.begin_staging()?;
        // What it unpacks to is not known yet; it is no less than this, most of the time.
        self.volume.has_room_for(body.announced().unwrap_or(0), self.limits.min_free)?;
        let (sender, receiver) = feed();
        let (volume, limits, unpacking) = (Arc::clone(&self.volume), self.limits, self.unpacking);
        let selection = self.selection.clone();
        let unpacked =
            blocking(move || unpack(volume, receiver, compression, &selection, &limits, &unpacking));
        let arrived = pump(body, sender, self.unpacking.max_archive_size, self.digest);
        let (arrived, unpacked) = tokio::join!(arrived, unpacked);
        // Where the connection broke, that the archive is incomplete is only its consequence.
        let wire_bytes = arrived?;
        let (contents, manifest) = unpacked?;
        self.metrics.fetched(1, wire_bytes);
        self.metrics.phase(Phase::Unpack, began);
        Ok((contents, manifest, wire_bytes))
    }

    /// Puts a release together from what is on the volume and what has arrived, and publishes it.
    async fn assemble(
        &mut self,
        objects: &Arc<Objects>,
        id: &ReleaseId,
        (manifest, signed): (&Arc<Manifest>, Option<SignedManifest>),
        assembly: Assembly,
        (current, mut fetched): (Option<ReleaseId>, Fetched),
        freshness: Freshness,
    ) -> Result<Outcome, SyncError> {
        let began = Instant::now();
        let mut staging = begin(&self.volume, id, manifest, self.seed.take(), assembly.diff.as_ref())?;
        let refused = link(&staging, &assembly.link, manifest)?;
        self.metrics.phase(Phase::Link, began);
        if !refused.is_empty() {
            let more = self.fetch(objects, id, manifest, &refused, freshness).await?;
            fetched = Fetched { files: fetched.files + more.files, bytes: fetched.bytes + more.bytes };
        }
        let began = Instant::now();
        let arrived = assembly.fetch.iter().chain(&refused).map(|index| &manifest.files[*index]);
        staging.install(objects, arrived)?;
        if let Some(signed) = signed {
            staging.sign(signed)?;
        }
        self.pass_gate(id, staging.directory(), None).await?;
        let published = publish(&staging, current.as_ref())?;
        self.metrics.phase(Phase::Publish, began);
        Ok(self.published(&published, id, manifest, current, fetched))
    }

    /// What follows from `current` naming another release. Nothing here can fail.
    fn published(
        &mut self,
        published: &Published,
        id: &ReleaseId,
        manifest: &Manifest,
        replaced: Option<ReleaseId>,
        fetched: Fetched,
    ) -> Outcome {
        let bytes = manifest.total_size();
        self.metrics.reused(manifest.files.len().saturating_sub(fetched.files));
        match self.volume.free() {
            Ok(free) => self.metrics.space(bytes, free),
            Err(error) => tracing::debug!(%error, "the metric of free space stays as it was"),
        }
        self.retention.published(id, replaced, published.replaced_at);
        self.seed.invalidate();
        self.verification = None;
        Outcome::Published(Publication {
            release: id.clone(),
            files: manifest.files.len(),
            bytes,
            fetched_files: fetched.files,
            fetched_bytes: fetched.bytes,
        })
    }

    /// Re-reads the published release and puts right what is damaged. An error says why that was not possible; the next sync then
    /// puts the whole release together again.
    pub(crate) async fn verify(&mut self, stop: &CancellationToken) -> Result<Verdict, SyncError> {
        let verdict = self.verify_current(stop).await;
        if !matches!(verdict, Ok(Verdict::Sound | Verdict::Interrupted)) {
            // What was damaged in the release is damaged in its copy.
            if let Some(seed) = self.seed.take() {
                seed.discard();
            }
        }
        if !matches!(verdict, Ok(Verdict::Sound | Verdict::Interrupted | Verdict::Repaired(_))) {
            self.distrust();
        }
        if self.has_staged
            && let Err(error) = clear(&self.volume, Clear::All)
        {
            tracing::warn!(%error, "staging not cleaned up; will retry");
        }
        verdict
    }

    async fn verify_current(&mut self, stop: &CancellationToken) -> Result<Verdict, SyncError> {
        let Some(id) = self.current.clone() else { return Ok(Verdict::Sound) };
        if self.volume.current()?.as_ref() != Some(&id) {
            return Ok(Verdict::Lost);
        }
        let Some(manifest) = self.volume.manifest(&id) else { return Ok(Verdict::Lost) };
        let goes_on = self.verification.take().filter(|verification| *verification.release() == id);
        let mut verification = goes_on.unwrap_or_else(|| Verification::new(id.clone()));
        let Some(damaged) = verification.run(&self.volume, &manifest, || stop.is_cancelled())? else {
            self.verification = Some(verification);
            return Ok(Verdict::Interrupted);
        };
        drop(manifest);
        let Some(first) = damaged.files.first() else { return Ok(Verdict::Sound) };
        let count = damaged.files.len();
        tracing::warn!(release = %id, files = count, first = %first.path, "damaged, repairing");
        self.source.renew_credential().await?;
        let damaged = Arc::new(damaged);
        let staged = match self.source.kind() {
            Some(Kind::Manifest) => Some(self.fetch_damaged(&id, &damaged).await?),
            Some(Kind::Repository) => {
                let intake = self.intake();
                let tip = self.repository()?.tip(&intake.source).await?;
                self.begin_staging()?;
                let received = self.repository()?.receive(&intake, &tip, None).await;
                let (commit, _) = received.map_err(Incomplete::into_error)?;
                self.stage_damaged(&id, commit.contents, &commit.manifest, &damaged)?
            }
            Some(Kind::Image) => {
                let intake = self.intake();
                let Received { contents, manifest, .. } = self.receive_image(&intake).await?;
                self.stage_damaged(&id, contents, &manifest, &damaged)?
            }
            Some(Kind::Archive) | None => {
                let opened = self.source.open(Freshness::Cached).await?;
                let Content::Archive(compression) = opened.content else { return Ok(Verdict::Lost) };
                let (contents, manifest, _) = self.unpack(opened.body, compression).await?;
                self.stage_damaged(&id, contents, &manifest, &damaged)?
            }
        };
        // The source may have moved on; then the next sync replaces the damaged release.
        let Some(staging) = staged else { return Ok(Verdict::Lost) };
        let _published = restore(&staging, &damaged)?;
        Ok(Verdict::Repaired(count))
    }

    async fn fetch_damaged(&mut self, id: &ReleaseId, damaged: &Arc<Manifest>) -> Result<Staging, SyncError> {
        let objects = self.objects()?;
        let files: Vec<_> = (0..damaged.files.len()).collect();
        self.fetch(&objects, id, damaged, &files, Freshness::Cached).await?;
        let staging = Staging::begin(&self.volume, id, damaged)?;
        staging.install(&objects, damaged.files.iter())?;
        Ok(staging)
    }

    /// Stages the damaged files of a release out of what has arrived in one piece; `None` where that is another release, or one
    /// of the files has not arrived.
    fn stage_damaged(
        &self,
        id: &ReleaseId,
        contents: Contents,
        manifest: &Manifest,
        damaged: &Manifest,
    ) -> Result<Option<Staging>, SyncError> {
        if manifest.id() != *id {
            return Ok(None);
        }
        let staging = Staging::begin(&self.volume, id, damaged)?;
        let paths: HashSet<_> = damaged.files.iter().map(|file| &file.path).collect();
        let is_damaged = |index: &usize| paths.contains(&manifest.files[*index].path);
        let wanted: Vec<_> = (0..manifest.files.len()).filter(is_damaged).collect();
        Ok(contents.place(&staging, manifest, &wanted)?.is_ok().then_some(staging))
    }

    /// Does what can wait until a sync is answered: removes the old releases whose time has come, and makes the seed tree.
    pub(crate) fn upkeep(&mut self) {
        for id in self.retention.expired(SystemTime::now()) {
            match remove_release(&self.volume, &id) {
                Ok(()) => {
                    self.retention.forget(&id);
                    tracing::info!(release = %id, "old release removed");
                }
                // It costs space, not content.
                Err(error) => tracing::warn!(%error, "old release not removed; will retry"),
            }
        }
        self.metrics.old_releases(self.retention.len());
        // An archive's files all arrive anew, so it has no use for a seed tree.
        if self.source.kind() == Some(Kind::Manifest) && self.audience == Audience::Log {
            self.seed.prepare(&self.volume, self.current.as_ref());
        }
    }
}

/// Whether a release looks as it was published.
fn is_intact(volume: &Volume, id: &ReleaseId) -> bool {
    volume.manifest(id).is_some_and(|manifest| whole(volume, id, &manifest).unwrap_or_default())
}
