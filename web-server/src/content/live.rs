//! A plain directory, which may be edited at any moment: nothing is known ahead, so every request looks.
//!
//! What a file's digest was stays true for as long as its stamp does, and is kept by stamp. A file whose body is in memory is only
//! looked at; any other is opened once per request, and all that is said of it (length, tag, body) comes from that one open file: never
//! an old length with a new body.
//!
//! A file that is too large for memory is hashed once for all requests that ask for it meanwhile, and hashing stops once none of them
//! waits any more; a smaller one takes no longer than to wait for another request. A file that
//! would take longer to hash than a client should wait is not hashed for a request at all: its entity tag is made of its stamp.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;
use tokio_util::sync::CancellationToken;

use crate::content::digest::Digest;
use crate::content::dir::{Directory, FileState, Lookup};
use crate::content::generation::Found;
use crate::content::index::LoadOptions;
use crate::content::path::ContentPath;
use crate::content::representation::{HELD_MAX, Modified, Representation, Source};
use crate::memory::{Account, Budget};

/// A file that was changed less than this before it was read may change once more within the same tick of the file
/// system's clock, which would not show in its stamp. What was read is served, and not remembered.
const SETTLED: Duration = Duration::from_millis(100);
/// How often a file is read again that was changed while it was being read.
const ATTEMPTS: usize = 8;
/// Digests remembered; at this many all are forgotten, since the stamps of states that are gone never come back.
const REMEMBERED: usize = 100_000;
/// What one digest that is remembered takes at most: 120 bytes in a table that may just have doubled, with the one before it beside it.
const COST: u64 = 400;
/// What a body takes besides its bytes: it is counted, shared, and on the heap.
const BODY: u64 = 150;
/// Larger files are tagged by their stamp: to hash this much takes about 30 ms, and the first byte of an answer has to come within
/// 100 ms. Such a tag also changes when the same bytes are written once more, and differs from one replica to the next.
const HASHED_MAX: u64 = 8 * 1024 * 1024;
/// Files that are hashed at the same time at most. Those who ask for one that is being hashed wait for its digest.
const HASHED_AT_ONCE: usize = 16;

/// A plain directory as content.
#[derive(Debug)]
pub(crate) struct LiveDirectory {
    directory: Directory,
    is_remote: bool,
    options: LoadOptions,
    memory: Mutex<Memory>,
    /// The one for a file is selected by its inode.
    turns: Box<[Turn; HASHED_AT_ONCE]>,
    /// Where operators see how much is held.
    shown: Gauge,
}

/// Files that are hashed one after the other, and the requests that wait for one of them.
#[derive(Debug, Default)]
struct Turn {
    /// Held by the task that hashes.
    hashing: Mutex<()>,
    /// Cancelled where a request waits no more.
    asked: Mutex<Vec<CancellationToken>>,
}

impl Turn {
    fn join(&self, asked: &CancellationToken) {
        let mut all = self.asked.lock();
        all.retain(|other| !other.is_cancelled());
        all.push(asked.clone());
    }

    fn is_awaited(&self) -> bool {
        !self.asked.lock().iter().all(CancellationToken::is_cancelled)
    }
}

#[derive(Debug, Default)]
struct Memory {
    known: HashMap<FileState, Known>,
    held: u64,
}

#[derive(Debug, Clone)]
struct Known {
    digest: Digest,
    /// Where it is small enough, and the budget allowed it.
    body: Option<Bytes>,
}

impl LiveDirectory {
    /// Serves this directory.
    pub(crate) fn new(directory: Directory, options: LoadOptions, shown: Gauge) -> Self {
        let is_remote = directory.is_remote();
        Self { directory, is_remote, options, memory: Mutex::default(), turns: Box::default(), shown }
    }

    /// The directory itself.
    pub(crate) fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Where memory comes from.
    pub(crate) fn budget(&self) -> &Arc<Budget> {
        &self.options.budget
    }

    /// Gives back what digests and bodies take that would only have to be worked out again.
    pub(crate) fn forget(&self) {
        self.memory.lock().forget_all(&self.options.budget);
        self.shown.set(0);
    }

    /// Bytes of bodies held in memory.
    pub(crate) fn held(&self) -> u64 {
        self.memory.lock().held
    }

    /// Looks a path up, as the directory is now, where neither a disk nor another request has to be waited for: a file in a state
    /// in which it was read before, or one that is not hashed anyway. `None` says that [`LiveDirectory::find`] has to look.
    pub(crate) fn find_cached(&self, path: &ContentPath) -> Option<Found> {
        if self.is_remote {
            return None;
        }
        let name = path.file();
        let stamp = self.directory.cached_state(name)?;
        let known = if stamp.size > HASHED_MAX {
            is_settled(stamp).then(|| Known::by_stamp(stamp))?
        } else {
            self.memory.try_lock()?.known.get(&stamp).cloned()?
        };
        let source = match known.body {
            Some(body) => Source::Memory(body),
            None if stamp.size > HELD_MAX => {
                let (file, state) = self.directory.cached_file(name)?;
                (state == stamp).then(|| Source::Open { file: Arc::new(file), state })?
            }
            None => return None,
        };
        Some(Found::File(Arc::new(self.representation(name, stamp, known.digest, source))))
    }

    /// Looks a path up, as the directory is now, for a request that cancels `asked` when it waits no more. Blocks.
    ///
    /// # Errors
    /// As the system gives them, where a file never stands still for long enough to be read, and where it would have to be
    /// hashed and no request waits for that any more.
    pub(crate) fn find(&self, path: &ContentPath, asked: &CancellationToken) -> io::Result<Found> {
        let name = path.file();
        for _ in 0..ATTEMPTS {
            match self.directory.file(name)? {
                Lookup::File((file, stamp)) => {
                    if let Some(representation) = self.represent(name, file, stamp, asked)? {
                        return Ok(Found::File(Arc::new(representation)));
                    }
                }
                Lookup::Dir if path.may_be_redirected() => return Ok(Found::Directory),
                Lookup::Dir | Lookup::None => return Ok(Found::Nothing),
            }
        }
        Err(io::Error::new(io::ErrorKind::ResourceBusy, format!("{name} changes faster than it can be read")))
    }

    /// The digest of a file in this state. Blocks where it is not known yet.
    ///
    /// # Errors
    /// As the system gives them; `None` where the file is not in this state any more.
    pub(crate) fn digest(&self, path: &str, stamp: FileState) -> io::Result<Option<Digest>> {
        if let Some(known) = self.recall(stamp) {
            return Ok(Some(known.digest));
        }
        match self.directory.file(path)? {
            Lookup::File((file, found)) if found == stamp => {
                let settled = is_settled(stamp);
                let Some(known) = Known::read(&file, stamp, || true)? else { return Ok(None) };
                if settled {
                    // Without the body, which no request has asked for: of many files, those would leave the heap full of holes.
                    self.remember(stamp, Known { body: None, ..known });
                }
                Ok(Some(known.digest))
            }
            Lookup::File(_) | Lookup::Dir | Lookup::None => Ok(None),
        }
    }

    /// `None` where the file was changed while it was read.
    fn represent(
        &self,
        path: &str,
        file: File,
        stamp: FileState,
        asked: &CancellationToken,
    ) -> io::Result<Option<Representation>> {
        let known = match self.recall(stamp) {
            _ if stamp.size > HASHED_MAX => Self::tell_apart(&file, stamp)?,
            Some(known) if known.body.is_some() || stamp.size > HELD_MAX => Some(known),
            _ if stamp.size > HELD_MAX => self.learn_once(&file, stamp, asked)?,
            _ => self.learn(&file, stamp, || true)?,
        };
        Ok(known.map(|known| {
            let source = match known.body {
                Some(body) => Source::Memory(body),
                None => Source::Open { file: Arc::new(file), state: stamp },
            };
            self.representation(path, stamp, known.digest, source)
        }))
    }

    fn representation(&self, path: &str, stamp: FileState, digest: Digest, source: Source) -> Representation {
        let modified = Modified::at(stamp.last_change());
        let cache_control = self.options.header_policy.cache_control(path);
        let content_type = self.options.header_policy.content_type(path);
        Representation { cache_control, ..Representation::new(digest, modified, content_type, source) }
    }

    fn recall(&self, stamp: FileState) -> Option<Known> {
        self.memory.lock().known.get(&stamp).cloned()
    }

    /// A digest of the file's stamp in place of its bytes. `None` where another change could still leave the stamp as it is, and
    /// one came while that was waited for.
    fn tell_apart(file: &File, stamp: FileState) -> io::Result<Option<Known>> {
        let unsettled = settles_in(stamp);
        if !unsettled.is_zero() {
            sleep(unsettled);
            if FileState::of_file(file)? != stamp {
                return Ok(None);
            }
        }
        Ok(Some(Known::by_stamp(stamp)))
    }

    fn turn(&self, stamp: FileState) -> &Turn {
        &self.turns[usize::try_from(stamp.inode % HASHED_AT_ONCE as u64).unwrap_or_default()]
    }

    /// Reads the file, unless another request does so already: then its result is waited for.
    fn learn_once(
        &self,
        file: &File,
        stamp: FileState,
        asked: &CancellationToken,
    ) -> io::Result<Option<Known>> {
        let turn = self.turn(stamp);
        turn.join(asked);
        let _hashing = turn.hashing.lock();
        match self.recall(stamp) {
            Some(known) => Ok(Some(known)),
            // Not only for this request: others may have asked for the same file.
            None => self.learn(file, stamp, || turn.is_awaited()),
        }
    }

    /// Reads the file, and makes sure that it stood still meanwhile.
    fn learn(
        &self,
        file: &File,
        stamp: FileState,
        is_wanted: impl Fn() -> bool,
    ) -> io::Result<Option<Known>> {
        let settled = is_settled(stamp);
        let known = Known::read(file, stamp, is_wanted)?;
        Ok(known.map(|known| if settled { self.remember(stamp, known) } else { known }))
    }

    /// Remembers what was found as far as memory allows, and gives it back as it is kept.
    fn remember(&self, stamp: FileState, found: Known) -> Known {
        let budget = &self.options.budget;
        let mut memory = self.memory.lock();
        if memory.known.len() >= REMEMBERED || budget.take(Account::Index, COST).is_err() {
            memory.forget_all(budget);
            if budget.take(Account::Index, COST).is_err() {
                return found;
            }
        }
        let kept = found.body.as_ref().and_then(|body| memory.keep(body, self.options.cache, budget));
        let remembered = Known { digest: found.digest, body: kept.clone() };
        if let Some(before) = memory.known.insert(stamp, remembered) {
            budget.refund(Account::Index, COST);
            memory.held -= before.body.map_or(0, |body| body.len() as u64);
        }
        self.shown.set(i64::try_from(memory.held).unwrap_or(i64::MAX));
        Known { digest: found.digest, body: kept.or(found.body) }
    }
}

impl Known {
    /// Reads the file. `None` where it was changed meanwhile.
    fn read(file: &File, stamp: FileState, is_wanted: impl Fn() -> bool) -> io::Result<Option<Self>> {
        let known = if stamp.size <= HELD_MAX {
            let mut body = Vec::with_capacity(usize::try_from(stamp.size).unwrap_or_default());
            file.take(HELD_MAX + 1).read_to_end(&mut body)?;
            Self { digest: Digest::of(&body), body: Some(body.into()) }
        } else {
            Self { digest: Digest::of_file_while(file, is_wanted)?, body: None }
        };
        let as_long = known.body.as_ref().is_none_or(|body| body.len() as u64 == stamp.size);
        let is_unchanged = as_long && FileState::of_file(file)? == stamp;
        Ok(is_unchanged.then_some(known))
    }

    fn by_stamp(stamp: FileState) -> Self {
        Self { digest: Digest::of(&stamp.to_bytes()), body: None }
    }
}

/// Whether another change would show in the stamp.
pub(super) fn is_settled(stamp: FileState) -> bool {
    settles_in(stamp).is_zero()
}

/// How long until it would; no longer than [`SETTLED`] where the stamp is of another machine's clock.
fn settles_in(stamp: FileState) -> Duration {
    SETTLED.saturating_sub(stamp.age())
}

impl Memory {
    /// A copy of a body that counts as cache, or nothing where there is no room for it.
    fn keep(&mut self, body: &Bytes, cache: u64, budget: &Arc<Budget>) -> Option<Bytes> {
        let size = body.len() as u64;
        if self.held + size > cache {
            self.forget_bodies();
        }
        let kept = (size <= cache).then(|| budget.hold(body.to_vec(), BODY))?.ok()?;
        self.held += size;
        Some(kept)
    }

    /// Some of what is held belongs to states that are gone. Digests are small, and dear to work out again: they stay.
    fn forget_bodies(&mut self) {
        for known in self.known.values_mut() {
            known.body = None;
        }
        self.held = 0;
    }

    fn forget_all(&mut self, budget: &Budget) {
        budget.refund(Account::Index, self.known.len() as u64 * COST);
        *self = Self::default();
    }
}

impl Drop for LiveDirectory {
    fn drop(&mut self) {
        self.memory.lock().forget_all(&self.options.budget);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Seek as _;

    use notify::{RecursiveMode, Watcher as _};

    use super::*;

    fn live(root: &std::path::Path, budget: u64) -> LiveDirectory {
        let options = LoadOptions {
            cache: budget,
            stale_assets: Duration::ZERO,
            header_policy: Arc::default(),
            budget: Budget::hidden(None),
        };
        LiveDirectory::new(Directory::open(root).unwrap(), options, Gauge::default())
    }

    fn body(live: &LiveDirectory, path: &str) -> Option<Bytes> {
        match live.find(&ContentPath::from_target(path).unwrap(), &CancellationToken::new()).unwrap() {
            Found::File(representation) => match &representation.source {
                Source::Memory(bytes) => Some(bytes.clone()),
                other => panic!("{other:?}"),
            },
            Found::Directory | Found::Nothing => None,
        }
    }

    #[test]
    fn a_change_of_equal_length_within_a_clock_tick_is_seen() {
        let root = tempfile::tempdir().unwrap();
        let live = live(root.path(), 1 << 20);
        for round in 0..200 {
            let text = format!("{round:04}");
            std::fs::write(root.path().join("f"), &text).unwrap();
            assert_eq!(body(&live, "/f").as_deref(), Some(text.as_bytes()));
        }
    }

    #[test]
    fn a_file_that_was_changed_just_now_is_waited_for_no_longer_than_it_has_to_be() {
        let file = tempfile::tempfile().unwrap();
        let stamp = FileState::of_file(&file).unwrap();
        std::thread::sleep(SETTLED / 2);
        assert!(settles_in(stamp) <= SETTLED / 2);
        assert!(LiveDirectory::tell_apart(&file, stamp).unwrap().is_some());
        assert!(is_settled(stamp));
    }

    #[test]
    fn what_was_read_is_found_at_once_and_what_has_changed_is_not() {
        let root = tempfile::tempdir().unwrap();
        let live = live(root.path(), 1 << 20);
        let path = ContentPath::from_target("/f").unwrap();
        std::fs::write(root.path().join("f"), "one").unwrap();
        std::thread::sleep(SETTLED * 2);
        assert!(live.find_cached(&path).is_none(), "nobody has read it");
        assert_eq!(body(&live, "/f").as_deref(), Some(&b"one"[..]));
        // Where the kernel or the file system cannot tell at once, every request looks as before.
        if live.directory().cached_file("f").is_none() || live.directory().is_remote() {
            return;
        }
        assert!(matches!(live.find_cached(&path), Some(Found::File(_))));
        std::fs::write(root.path().join("f"), "two").unwrap();
        assert!(live.find_cached(&path).is_none());
        std::fs::remove_file(root.path().join("f")).unwrap();
        assert!(live.find_cached(&path).is_none());
        assert!(live.find_cached(&ContentPath::from_target("/").unwrap()).is_none());
    }

    #[test]
    fn a_file_that_is_dated_in_the_future_settles_as_any_other() {
        let root = tempfile::tempdir().unwrap();
        let file = std::fs::File::create(root.path().join("f")).unwrap();
        // A machine that is busy with other tests may look when the file has settled already.
        let stamp = testkit::eventually("the file is seen before it has settled", || {
            file.set_modified(std::time::SystemTime::now() + Duration::from_secs(1 << 31)).unwrap();
            let stamp = FileState::of_file(&file).unwrap();
            (!is_settled(stamp)).then_some(stamp)
        });
        testkit::wait_until("the file has settled", || is_settled(stamp));
        let live = live(root.path(), 1 << 20);
        body(&live, "/f").unwrap();
        assert!(live.recall(stamp).is_some(), "it is hashed for each request");
    }

    /// inotify tells the watchers of a directory of each file in it that is opened.
    #[test]
    fn a_file_that_is_in_memory_is_not_opened() {
        let root = tempfile::tempdir().unwrap();
        let live = live(root.path(), 1 << 20);
        let path = ContentPath::from_target("/f").unwrap();
        std::fs::write(root.path().join("f"), "one").unwrap();
        std::thread::sleep(SETTLED * 2);
        body(&live, "/f").unwrap();
        let (events, seen) = std::sync::mpsc::channel();
        let mut watcher = notify::recommended_watcher(events).unwrap();
        watcher.watch(root.path(), RecursiveMode::NonRecursive).unwrap();
        for _ in 0..3 {
            // Where the kernel or the file system cannot tell at once, every request opens it.
            if live.find_cached(&path).is_none() {
                return;
            }
        }
        std::fs::write(root.path().join("last"), "").unwrap();
        let first = seen.recv_timeout(Duration::from_secs(60)).unwrap().unwrap();
        assert_eq!(first.paths, [root.path().join("last")], "{first:?}");
    }

    #[test]
    fn a_file_is_hashed_while_a_request_waits_and_no_further() {
        let root = tempfile::tempdir().unwrap();
        let live = live(root.path(), 1 << 20);
        let path = ContentPath::from_target("/f").unwrap();
        std::fs::File::create(root.path().join("f")).unwrap().set_len(4 << 20).unwrap();
        let Lookup::File((file, stamp)) = live.directory().file("f").unwrap() else { panic!("no file") };
        let turn = live.turn(stamp);
        let (gone, other) = (CancellationToken::new(), CancellationToken::new());
        for asked in [&gone, &other] {
            turn.join(asked);
        }
        // The request for which it began has gone, another waits.
        gone.cancel();
        live.learn_once(&file, stamp, &gone).unwrap().unwrap();
        other.cancel();
        let Lookup::File((file, stamp)) = live.directory().file("f").unwrap() else { panic!("no file") };
        live.memory.lock().known.clear();
        assert_eq!(live.learn_once(&file, stamp, &gone).unwrap_err().kind(), io::ErrorKind::Interrupted);
        assert_eq!((&file).stream_position().unwrap(), 0, "bytes were read for no request");
        assert_eq!(live.find(&path, &gone).unwrap_err().kind(), io::ErrorKind::Interrupted);
        // It is hashed once more for the next.
        assert!(matches!(live.find(&path, &CancellationToken::new()), Ok(Found::File(_))));
    }

    #[test]
    fn what_is_remembered_stays_within_the_budget() {
        let root = tempfile::tempdir().unwrap();
        let live = live(root.path(), 10);
        for name in ["a", "b", "c"] {
            std::fs::write(root.path().join(name), [b'x'; 6]).unwrap();
        }
        std::fs::write(root.path().join("large"), [b'x'; 20]).unwrap();
        std::thread::sleep(SETTLED * 2);
        for _ in 0..2 {
            for path in ["/a", "/b", "/c", "/large"] {
                assert!(body(&live, path).is_some());
                assert!(live.held() <= 10, "{}", live.held());
            }
        }
    }
}
