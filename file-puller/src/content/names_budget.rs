//! Whether the names of an archive, a repository or an image fit into the process' memory: [`NamesBudget`].
//!
//! A manifest says by its size what it will take. Here names come one after the other, so each is counted, and one too many refuses the
//! whole by name before the kernel ends the process.

use lifecycle::cgroup::memory_limit;

use super::ReleasePath;

/// What the process takes without any.
const BASE: u64 = 11 * 1024 * 1024;
/// Bytes that a file takes besides its name, measured: in the listing, in the release's manifest, and in that of the release before.
const FILE: u64 = 408;
/// How often a name is in memory: the same three.
const COPIES: u64 = 3;

/// Counts what names take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NamesBudget {
    limit: Option<u64>,
    /// Bytes that a file takes besides.
    file: u64,
    need: u64,
}

impl NamesBudget {
    /// Of a process that has no limit to keep to.
    pub(crate) const UNLIMITED: Self = Self { limit: None, file: FILE, need: BASE };

    /// Of the container's limit; a source may keep some more bytes for each file.
    pub(crate) fn of_container(more_for_each: u64) -> Self {
        Self::new(memory_limit(), more_for_each)
    }

    pub(super) fn new(limit: Option<u64>, more_for_each: u64) -> Self {
        Self { limit, file: FILE + more_for_each, need: BASE }
    }

    /// Counts a file. The error says why it is one too many.
    pub(crate) fn add(&mut self, path: &ReleasePath) -> Result<(), String> {
        self.add_others(self.file + COPIES * path.as_str().len() as u64)
    }

    /// Counts bytes that something else takes beside the names.
    pub(crate) fn add_others(&mut self, bytes: u64) -> Result<(), String> {
        self.need += bytes;
        match self.limit {
            Some(limit) if self.need > limit => {
                let limit = bytesize::ByteSize(limit);
                Err(format!(
                    "the names of its files take more memory than this container's limit of {limit}; raise that limit, or split the content"
                ))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files_within_64_mib(name: usize) -> usize {
        let mut budget = NamesBudget::new(Some(64 << 20), 0);
        let path = ReleasePath::parse(&"n".repeat(name)).unwrap();
        (0..200_000).take_while(|_| budget.add(&path).is_ok()).count()
    }

    #[test]
    fn names_that_do_not_fit_into_memory_are_refused() {
        assert!(files_within_64_mib(20) >= 100_000, "a site's names fit");
        let long = files_within_64_mib(200);
        assert!((50_000..60_000).contains(&long), "{long}");
        let mut beside_objects = NamesBudget::new(Some(64 << 20), 0);
        assert!(beside_objects.add_others(52 << 20).is_ok() && beside_objects.add_others(2 << 20).is_err());
        let mut budget = NamesBudget::new(None, 0);
        assert!((0..1000).all(|_| budget.add(&ReleasePath::parse("a").unwrap()).is_ok()));
        let refusal = NamesBudget::new(Some(1), 0).add(&ReleasePath::parse("a").unwrap()).unwrap_err();
        assert!(refusal.contains("limit of 1 B") && refusal.contains("raise"), "{refusal}");
    }
}
