//! The editions that a content manager gives out: the current one, told to all who wait for it, and for a while the ones
//! before it, for pullers that are still fetching their files.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lifecycle::Ignore as _;
use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::content::edition::Edition;
use crate::content::representation::ETag;
use crate::content::root::Content;

/// Editions before the current one whose files are still given out, and for how long: longer than a sync takes.
const RECENT: usize = 2;
pub(crate) const RECENT_FOR: Duration = Duration::from_secs(5 * 60);

/// From so many waiters on, pullers are told to spread their requests.
const SPREAD_FROM: u32 = 10;
/// How much each waiter adds to the time over which they spread, and to the time over which they are told: a thousand
/// manifests at once would need a lot of memory.
const SPREAD_EACH: Duration = Duration::from_micros(500);
const TOLD_EACH: Duration = Duration::from_micros(250);

/// What can be said now: the current edition, or why there is none.
pub(crate) type State = Result<Arc<Edition>, String>;

/// See the module.
#[derive(Debug)]
pub(crate) struct Editions {
    state: watch::Sender<State>,
    /// Whether a change was noticed that the current edition does not show yet.
    pending: watch::Sender<bool>,
    recent: Mutex<VecDeque<(Instant, Arc<Edition>)>>,
    /// One for each waiter that may be held.
    places: Arc<Semaphore>,
    waiters: Gauge,
    /// Why the current edition is not what the content is by now: that does not fit into memory.
    refused: Mutex<Option<String>>,
    /// Whether that is so, for operators.
    refused_shown: Gauge,
}

impl Editions {
    /// Has none yet. At most `most` waiters are held; operators see how many there are, and whether an edition was refused.
    pub(crate) fn new(most: usize, waiters: Gauge, refused_shown: Gauge) -> Self {
        Self {
            state: watch::Sender::new(Err("the manifest is being made".to_owned())),
            pending: watch::Sender::new(true),
            recent: Mutex::default(),
            places: Arc::new(Semaphore::new(most)),
            waiters,
            refused: Mutex::default(),
            refused_shown,
        }
    }

    /// What can be said now.
    pub(crate) fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Waits until every change that was noticed before this call is shown, for at most `limit`.
    pub(crate) async fn settled(&self, limit: Duration) {
        if !*self.pending.borrow() || self.refused().is_some() {
            return;
        }
        let mut pending = self.pending.subscribe();
        // An elapsed limit and a feed that has ended are the same to the caller: it says what can be said.
        tokio::time::timeout(limit, pending.wait_for(|pending| !pending)).await.map(drop).ignore();
    }

    /// A change was noticed.
    pub(crate) fn set_pending(&self) {
        self.pending.send_if_modified(|pending| !std::mem::replace(pending, true));
    }

    /// Every change that was noticed is shown.
    pub(crate) fn set_settled(&self) {
        self.pending.send_if_modified(|pending| std::mem::replace(pending, false));
    }

    /// Gives out an edition from here on, and tells all waiters, unless the current one says the same.
    pub(crate) fn publish(&self, mut edition: Edition) {
        self.accept();
        if self.state.borrow().as_ref().is_ok_and(|current| current.equals(&edition)) {
            return;
        }
        edition.told = u32::try_from(self.waiters.get()).unwrap_or(0);
        self.replace(Ok(Arc::new(edition)));
    }

    /// There is no manifest any more.
    pub(crate) fn withdraw(&self, reason: &str) {
        self.accept();
        self.set_missing(reason);
    }

    /// An edition does not fit into memory. An older one is better than none.
    pub(crate) fn refuse(&self, reason: String) {
        if self.state.borrow().is_err() {
            self.set_missing(&reason);
        }
        self.refused_shown.set(1);
        let mut refused = self.refused.lock();
        if refused.as_ref() != Some(&reason) {
            tracing::warn!("{reason}; the manifest that was given out before stays");
            *refused = Some(reason);
        }
    }

    /// Why the current edition is not what the content is by now, if that does not fit into memory.
    pub(crate) fn refused(&self) -> Option<String> {
        self.refused.lock().clone()
    }

    /// What the content is by now fits.
    pub(crate) fn accept(&self) {
        self.refused_shown.set(0);
        *self.refused.lock() = None;
    }

    fn set_missing(&self, reason: &str) {
        if self.state.borrow().as_ref().err().is_none_or(|known| known != reason) {
            self.replace(Err(reason.to_owned()));
        }
    }

    fn replace(&self, next: State) {
        let tag = |state: &State| state.as_ref().ok().map(|edition| edition.manifest.etag.clone());
        let now = tag(&next);
        let before = self.state.send_replace(next);
        // A release that was published again has the same manifest.
        let is_another = tag(&before) != now;
        if let Ok(edition) = before
            && is_another
            && matches!(&*edition.content, Content::Release(_))
        {
            let mut recent = self.recent.lock();
            recent.push_front((Instant::now(), edition));
            recent.truncate(RECENT);
        }
    }

    /// Lets go of editions that were replaced so long ago, and says whether there were any.
    pub(crate) fn expire(&self, limit: Duration) -> bool {
        let mut recent = self.recent.lock();
        let before = recent.len();
        recent.retain(|(replaced, _)| replaced.elapsed() < limit);
        recent.len() < before
    }

    /// The edition with this entity tag, if it is or was given out lately.
    pub(crate) fn find(&self, is_meant: impl Fn(&ETag) -> bool) -> Option<Arc<Edition>> {
        let recent = self.recent.lock();
        let all = self.state().into_iter().chain(recent.iter().map(|(_, edition)| Arc::clone(edition)));
        all.into_iter().find(|edition| is_meant(&edition.manifest.etag))
    }

    /// Waits for another edition than the one with this tag. None where there are as many waiters as there may be.
    pub(crate) fn wait(&self, known: ETag, until: Instant, shutdown: CancellationToken) -> Option<Waiter> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        self.waiters.inc();
        let (states, shown) = (self.state.subscribe(), self.waiters.clone());
        Some(Waiter { states, known, until, shutdown, shown, _place: place })
    }
}

/// Waits for another edition.
#[derive(Debug)]
pub(crate) struct Waiter {
    states: watch::Receiver<State>,
    known: ETag,
    until: Instant,
    shutdown: CancellationToken,
    shown: Gauge,
    _place: OwnedSemaphorePermit,
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.shown.dec();
    }
}

/// How a wait has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Waited {
    /// Whether the client should wait again. Not where the server is about to go: a client that asked again at once would find
    /// no server.
    pub(crate) again: bool,
    /// The time over which those who were told spread what they ask next.
    pub(crate) spread: Option<Duration>,
}

impl Waiter {
    /// Waits until there is another edition, the time is over, or the server ends.
    pub(crate) async fn wait(mut self) -> Waited {
        let over = Waited { again: false, spread: None };
        loop {
            let told = match &*self.states.borrow_and_update() {
                Ok(edition) if edition.manifest.etag == self.known => None,
                Ok(edition) => Some(edition.told),
                Err(_) => Some(0),
            };
            if let Some(told) = told {
                return self.tell(told).await;
            }
            tokio::select! {
                // The feed ends with the server.
                changed = self.states.changed() => if changed.is_err() { return over },
                () = sleep_until(self.until.into()) => return Waited { again: true, spread: None },
                () = self.shutdown.cancelled() => return over,
            }
        }
    }

    /// Tells a waiter of another edition, together with all the others.
    async fn tell(&self, told: u32) -> Waited {
        if told < SPREAD_FROM {
            return Waited { again: true, spread: None };
        }
        tokio::select! {
            () = sleep(TOLD_EACH.saturating_mul(told).mul_f64(fastrand::f64())) => {}
            () = self.shutdown.cancelled() => {}
        }
        Waited { again: true, spread: Some(SPREAD_EACH.saturating_mul(told)) }
    }
}
