//! Many pullers in this process.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
pub(crate) use file_puller::fleet::Volume;
use file_puller::fleet::{Event, Fleet};
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// How long anything may take.
const DEADLINE: Duration = Duration::from_secs(180);

/// Pullers that run.
#[derive(Debug)]
pub(crate) struct Swarm {
    /// They end when they are dropped.
    _pullers: JoinSet<()>,
    states: Arc<Mutex<Vec<State>>>,
}

/// What a puller has done.
#[derive(Debug, Clone, Default)]
struct State {
    release: Option<String>,
    published: Option<Instant>,
    fetched: usize,
    waits: bool,
    failures: Vec<(Instant, String)>,
}

impl Swarm {
    /// Starts so many pullers of a manifest.
    pub(crate) fn start(url: &str, count: usize, volume: Volume, flags: &[&str]) -> anyhow::Result<Self> {
        let fleet = Arc::new(Fleet::default());
        let states = Arc::new(Mutex::new(vec![State::default(); count]));
        let mut pullers = JoinSet::new();
        for number in 0..count {
            let puller = fleet.puller(url, volume, flags).map_err(|error| anyhow!(error))?;
            let states = Arc::clone(&states);
            let tell = move |event| states.lock()[number].happened(event);
            pullers.spawn(async move { puller.run(tell).await });
        }
        Ok(Self { _pullers: pullers, states })
    }

    /// Waits until all have a release, and another one than `before`; returns how long after `since` each had it.
    pub(crate) async fn published(
        &self,
        before: Option<&str>,
        since: Instant,
    ) -> anyhow::Result<Vec<Duration>> {
        let has = |state: &State| state.release.is_some() && state.release.as_deref() != before;
        self.until("all have published", |states| states.iter().all(has)).await?;
        let states = self.states.lock();
        Ok(states.iter().map(|state| state.published.map_or(Duration::MAX, |at| at - since)).collect())
    }

    /// Waits until all of them have a question held.
    pub(crate) async fn waits(&self) -> anyhow::Result<()> {
        self.until("all wait", |states| states.iter().all(|state| state.waits)).await
    }

    async fn until(&self, what: &str, holds: impl Fn(&[State]) -> bool) -> anyhow::Result<()> {
        let began = Instant::now();
        while !holds(&self.states.lock()) {
            if began.elapsed() > DEADLINE {
                let states = self.states.lock();
                let said = states.iter().flat_map(|state| &state.failures).next_back();
                let said = said.map_or("no failure", |(_, error)| error);
                let waiting = states.iter().filter(|state| state.waits).count();
                return Err(anyhow!("{waiting} of {} wait, and one said: {said}", states.len()))
                    .with_context(|| format!("waited {DEADLINE:?} in vain: {what}"));
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// The release that the first of them has.
    pub(crate) fn release(&self) -> Option<String> {
        self.states.lock().first()?.release.clone()
    }

    /// Files that were fetched for the last release, all pullers together.
    pub(crate) fn fetched(&self) -> usize {
        self.states.lock().iter().map(|state| state.fetched).sum()
    }

    /// Failures since then, and how long after it the last of them was.
    pub(crate) fn failures(&self, since: Instant) -> (usize, Duration) {
        let states = self.states.lock();
        let later = states.iter().flat_map(|state| &state.failures).filter(|(at, _)| *at >= since);
        let times: Vec<_> = later.map(|(at, _)| *at - since).collect();
        (times.len(), times.iter().max().copied().unwrap_or_default())
    }
}

impl State {
    fn happened(&mut self, event: Event) {
        self.waits = matches!(event, Event::Waits);
        match event {
            Event::Published { release, fetched } => {
                (self.release, self.published, self.fetched) = (Some(release), Some(Instant::now()), fetched);
            }
            Event::Waits => {}
            Event::Failed(error) => self.failures.push((Instant::now(), error)),
        }
    }
}
