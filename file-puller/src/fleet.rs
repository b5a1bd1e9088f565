//! A puller whose volume verifies what arrives and forgets it, so that a thousand of them fit into one process: `benches/fleet`.
//!
//! Whatever the content manager meets is the real thing: how it is asked, how long a question is held, what is fetched, how
//! many files at a time, what is tried again and when. What stays out is the volume, and with it planning across releases: a
//! file is fetched if the release before did not have its content. A manifest's text that one puller of the process has
//! read is not parsed again by the next: in a cluster each would have a processor for that.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use clap::Parser as _;
use lifecycle::admin;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::time::{Instant, sleep, sleep_until};

use crate::CONTAINER;
use crate::cli::Cli;
use crate::content::{Digest, Limits, Manifest, ManifestFile};
use crate::daemon::{Backoff, Cuts};
use crate::fetch::{Downloader, check_all};
use crate::metrics::Metrics;
use crate::source::{Change, Content, Freshness, Opened, Source, Validator};
use crate::sync::SyncError;

/// What the pullers of one process share.
#[derive(Debug)]
pub struct Fleet {
    metrics: Metrics,
    /// Releases by the digest of their manifest's text, as long as a puller has them.
    releases: Mutex<HashMap<Digest, Weak<Release>>>,
}

#[derive(Debug)]
struct Release {
    id: String,
    manifest: Arc<Manifest>,
}

/// What a puller's volume has when it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Volume {
    /// Nothing.
    Empty,
    /// All that the first manifest names, as after a restart.
    Full,
}

/// A puller.
#[derive(Debug)]
pub struct Puller {
    fleet: Arc<Fleet>,
    source: Arc<Source>,
    limits: Limits,
    backoff: Backoff,
    cuts: Cuts,
    volume: Volume,
    has: Option<(Validator, Arc<Release>)>,
}

/// What a puller did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// All files of this release have arrived and were verified.
    Published {
        /// The release.
        release: String,
        /// How many files had to be fetched.
        fetched: usize,
    },
    /// A question is about to be held.
    Waits,
    /// A sync has failed, and this is why.
    Failed(String),
}

impl Default for Fleet {
    fn default() -> Self {
        Self { metrics: Metrics::new(&mut admin::registry(&CONTAINER)), releases: Mutex::default() }
    }
}

impl Fleet {
    /// A puller of this manifest, with file-puller's own flags.
    ///
    /// # Errors
    /// Where a flag is not one of file-puller's.
    pub fn puller(self: &Arc<Self>, url: &str, volume: Volume, flags: &[&str]) -> Result<Puller, String> {
        // Two of them say nothing: there is no volume and no admin port.
        let always = ["file-puller", "--volume", "none", "--admin-addr", "127.0.0.1:0", "--source", url];
        let cli = Cli::try_parse_from(always.iter().chain(flags)).map_err(|error| error.to_string())?;
        let config = cli.config().map_err(|failure| failure.to_string())?;
        let (options, limits) = (&config.options, config.options.engine.limits);
        let source = Source::new(config.source, &options.source, config.kind, limits.manifest, None);
        Ok(Puller {
            fleet: Arc::clone(self),
            source: Arc::new(source.map_err(|error| error.to_string())?),
            limits,
            backoff: Backoff::new(options.period, options.max_backoff),
            cuts: Cuts::default(),
            volume,
            has: None,
        })
    }

    /// The release of a manifest's text.
    fn release(&self, json: &[u8], limits: &Limits) -> Result<Arc<Release>, SyncError> {
        let digest = Digest::of(Sha256::new_with_prefix(json));
        let mut releases = self.releases.lock();
        if let Some(known) = releases.get(&digest).and_then(Weak::upgrade) {
            return Ok(known);
        }
        let manifest = Arc::new(Manifest::parse(json, limits)?);
        let release = Arc::new(Release { id: manifest.id().to_string(), manifest });
        releases.retain(|_, known| known.strong_count() > 0);
        releases.insert(digest, Arc::downgrade(&release));
        Ok(release)
    }
}

impl Puller {
    /// Follows the source until it is dropped.
    pub async fn run(mut self, mut tell: impl FnMut(Event)) {
        let mut arrived = None;
        loop {
            let pause = match self.sync(arrived.take()).await {
                Ok(published) => {
                    if let Some(event) = published {
                        tell(event);
                    }
                    self.backoff.after_success()
                }
                Err(error) => {
                    tell(Event::Failed(error.to_string()));
                    self.cuts.forget();
                    sleep(self.backoff.after_failure(error.retry_after())).await;
                    continue;
                }
            };
            arrived = self.next_reason(pause, &mut tell).await;
        }
    }

    /// Waits for a change where the source can be asked to, or until it is time, as the scheduler of a real puller does.
    async fn next_reason(&mut self, mut pause: Duration, tell: &mut impl FnMut(Event)) -> Option<Opened> {
        while let Some((validator, _)) = self.has.as_ref().filter(|_| self.source.can_wait())
            && self.cuts.may_wait()
        {
            tell(Event::Waits);
            let began = Instant::now();
            let awaited = match self.source.renew_to_wait().await {
                Ok(()) => self.source.await_change(validator).await.map_err(SyncError::from),
                Err(error) => Err(error.into()),
            };
            match awaited {
                Ok(Change::Arrived(opened)) => return Some(opened),
                Ok(Change::None) => {
                    self.cuts.forget();
                    pause = self.backoff.after_success();
                }
                Ok(Change::Unable) => break,
                Ok(Change::Cut(error)) => {
                    self.cuts.cut(&error);
                    pause = self.backoff.after_cut();
                    break;
                }
                Err(error) => {
                    tell(Event::Failed(error.to_string()));
                    pause = self.backoff.after_failure(error.retry_after());
                    break;
                }
            }
            sleep_until(began + self.backoff.soon()).await;
        }
        sleep(pause).await;
        None
    }

    async fn sync(&mut self, arrived: Option<Opened>) -> Result<Option<Event>, SyncError> {
        self.source.renew_credential().await?;
        match self.attempt(Freshness::Cached, arrived).await {
            Err(SyncError::Mismatch(_)) => self.attempt(Freshness::Revalidated, None).await,
            done => done,
        }
    }

    async fn attempt(
        &mut self,
        freshness: Freshness,
        arrived: Option<Opened>,
    ) -> Result<Option<Event>, SyncError> {
        let known = self.has.as_ref().filter(|_| freshness == Freshness::Cached);
        let opened = match (arrived, known) {
            (Some(arrived), _) => arrived,
            (None, None) => self.source.open(freshness).await?,
            (None, Some((validator, _))) => match self.source.open_if_changed(validator).await? {
                None => return Ok(None),
                Some(opened) => opened,
            },
        };
        let Content::Manifest = opened.content else {
            return Err(SyncError::Archive("a fleet follows manifests".to_owned()));
        };
        let json = self.source.read_manifest(opened.body).await?;
        let release = self.fleet.release(&json, &self.limits)?;
        drop(json);
        let manifest = Arc::clone(&release.manifest);
        self.source.base().covers(&manifest)?;
        let files = self.missing(&manifest);
        let downloader = Downloader {
            source: Arc::clone(&self.source),
            manifest,
            freshness,
            metrics: self.fleet.metrics.clone(),
        };
        check_all(downloader, &files, self.source.concurrency()).await?;
        let is_new = self.has.as_ref().is_none_or(|(_, had)| had.id != release.id);
        let event = Event::Published { release: release.id.clone(), fetched: files.len() };
        self.has = Some((opened.validator, release));
        Ok(is_new.then_some(event))
    }

    /// The files whose content the release before did not have, each content once.
    fn missing(&self, manifest: &Manifest) -> Vec<usize> {
        if self.has.is_none() && self.volume == Volume::Full {
            return Vec::new();
        }
        let had = self.has.iter().flat_map(|(_, release)| &release.manifest.files);
        let mut known: HashSet<_> = had.map(ManifestFile::content).collect();
        let files = manifest.files.iter().enumerate();
        files.filter(|(_, file)| known.insert(file.content())).map(|(index, _)| index).collect()
    }
}
