//! The index of a release: every file and directory by its path, in memory that is accounted for.
//!
//! Generations share the entries of files that they have in common. An entry's memory is given back by the last that lets go of it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::entry::{Entry, Facts};
use super::header_policy::HeaderPolicy;
use super::representation::{Representation, Source};
use crate::memory::{Account, Budget, NoRoom};

/// What a place in the table costs, on average, and a directory's name besides its bytes.
pub(crate) const SLOT: u64 = 40;

/// How releases are made ready.
#[derive(Debug, Clone)]
pub(crate) struct LoadOptions {
    /// Bytes of bodies that may be held in memory.
    pub(crate) cache: u64,
    /// How long assets of a release are given out that the next one has no more.
    pub(crate) stale_assets: Duration,
    /// Headers that operators configure.
    pub(crate) header_policy: Arc<HeaderPolicy>,
    /// Where memory comes from.
    pub(crate) budget: Arc<Budget>,
}

/// A file by itself, without its siblings.
pub(super) fn represent(entry: &Entry, source: Source, header_policy: &HeaderPolicy) -> Representation {
    let Facts { digest, modified, .. } = entry.facts();
    let cache_control = header_policy.cache_control(entry.path());
    let content_type = header_policy.content_type(entry.path());
    Representation { cache_control, ..Representation::new(digest, modified, content_type, source) }
}

/// Every file and directory of a release, and the memory that they take.
#[derive(Debug)]
pub(crate) struct Index {
    /// The representation is kept where the body is.
    files: HashMap<Entry, Option<Arc<Representation>>>,
    directories: HashSet<Box<str>>,
    budget: Arc<Budget>,
    /// What was taken for the tables. Entries are accounted for one by one, because generations share them.
    tables: u64,
}

/// So that of two generations that let go of an entry at the same time exactly one gives its memory back.
static LETTING_GO: Mutex<()> = Mutex::new(());

impl Index {
    /// Without files.
    pub(super) fn new(budget: &Arc<Budget>) -> Self {
        Self { files: HashMap::new(), directories: HashSet::new(), budget: Arc::clone(budget), tables: 0 }
    }

    /// Adds a file that the generation before has as well.
    pub(super) fn share(&mut self, entry: Entry) -> Result<(), NoRoom> {
        self.budget.take(Account::Index, SLOT)?;
        self.tables += SLOT;
        self.files.insert(entry, None);
        Ok(())
    }

    /// Adds a file.
    pub(super) fn add(&mut self, path: &str, facts: &Facts) -> Result<(), NoRoom> {
        self.budget.take(Account::Index, Entry::cost(path))?;
        if let Err(error) = self.share(Entry::new(path, facts)) {
            self.budget.refund(Account::Index, Entry::cost(path));
            return Err(error);
        }
        Ok(())
    }

    /// Adds a directory.
    pub(super) fn add_directory(&mut self, path: &str) -> Result<(), NoRoom> {
        let cost = SLOT + path.len() as u64;
        self.budget.take(Account::Index, cost)?;
        self.tables += cost;
        self.directories.insert(path.into());
        Ok(())
    }

    /// Every entry, in no order.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.files.keys()
    }

    /// The entry at a path.
    pub(super) fn get(&self, path: &str) -> Option<&Entry> {
        self.find(path).map(|(entry, _)| entry)
    }

    /// The file at a path, and how it is represented if its body is in memory.
    pub(super) fn find(&self, path: &str) -> Option<(&Entry, Option<&Arc<Representation>>)> {
        self.files.get_key_value(path.as_bytes()).map(|(entry, ready)| (entry, ready.as_ref()))
    }

    /// Keeps a file whose body is in memory.
    pub(super) fn keep_ready(&mut self, entry: Entry, representation: Arc<Representation>) {
        self.files.insert(entry, Some(representation));
    }

    /// Every directory, the root left out, in no order.
    pub(crate) fn directories(&self) -> impl Iterator<Item = &str> {
        self.directories.iter().map(AsRef::as_ref)
    }

    /// Whether there is such a directory, the root left out.
    pub(crate) fn has_directory(&self, path: &str) -> bool {
        self.directories.contains(path)
    }

    /// How many files there are.
    pub(crate) fn len(&self) -> usize {
        self.files.len()
    }

    /// Says something else of a file, which this index alone has.
    pub(super) fn replace(&mut self, path: &str, facts: &Facts) {
        let entry = Entry::new(path, facts);
        // The key stays what it was if it is only inserted again.
        if let Some((before, ready)) = self.files.remove_entry(path.as_bytes()) {
            if !before.is_unshared() {
                self.budget.charge(Account::Index, Entry::cost(path));
            }
            self.files.insert(entry, ready);
        }
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        self.budget.refund(Account::Index, self.tables);
        let_go(self.files.drain().map(|(entry, _)| entry), &self.budget);
    }
}

/// Lets go of entries, and gives the memory back of those that nothing else has.
pub(super) fn let_go(entries: impl Iterator<Item = Entry>, budget: &Budget) {
    let _one_at_a_time = LETTING_GO.lock();
    for entry in entries.filter(Entry::is_unshared) {
        budget.refund(Account::Index, Entry::cost(entry.path()));
    }
}
