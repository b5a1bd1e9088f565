//! What the kernel says about files, kept until the agent asks for it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use notify::Event;
use notify::event::{EventKind, ModifyKind};
use parking_lot::Mutex;

use super::glob::Glob;

/// What the kernel said since the last time it was asked.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Names have come or gone: scan.
    pub(crate) names: bool,
    /// These have been written to.
    pub(crate) written: BTreeSet<PathBuf>,
}

/// What is called when something has changed, once until that is taken: it must not wait.
pub(crate) type Waker = Box<dyn Fn() + Send + Sync>;

/// Changes on their way from the kernel's thread to the agent.
pub(super) struct EventQueue {
    changes: Mutex<Changes>,
    /// Directories in which any name matters, whatever it is: links lead through them.
    linked: Mutex<BTreeSet<PathBuf>>,
    wake: Waker,
}

impl EventQueue {
    pub(super) fn new(wake: Waker) -> Self {
        Self { changes: Mutex::default(), linked: Mutex::default(), wake }
    }

    /// Takes what has come since the last time.
    pub(super) fn take(&self) -> Changes {
        std::mem::take(&mut *self.changes.lock())
    }

    /// From now on, every name in these directories matters.
    pub(super) fn set_linked(&self, directories: BTreeSet<PathBuf>) {
        *self.linked.lock() = directories;
    }

    pub(super) fn receive(&self, globs: &[Glob], event: notify::Result<Event>) {
        let mut changes = self.changes.lock();
        let is_first = !changes.names && changes.written.is_empty();
        match event {
            // The kernel's queue ran over: anything may have happened.
            Ok(event) if event.need_rescan() => changes.names = true,
            Ok(event) => match event.kind {
                // Our own reading, and whatever does not change content.
                EventKind::Access(_) | EventKind::Modify(ModifyKind::Metadata(_)) => return,
                EventKind::Modify(ModifyKind::Data(_)) => changes.written.extend(event.paths),
                _ => {
                    if !event.paths.iter().any(|path| self.concerns(globs, path)) {
                        return;
                    }
                    changes.names = true;
                }
            },
            Err(error) => {
                tracing::warn!(%error, "file events are incomplete: scanning instead");
                changes.names = true;
            }
        }
        drop(changes);
        if is_first {
            (self.wake)();
        }
    }

    fn concerns(&self, globs: &[Glob], path: &Path) -> bool {
        let linked = || path.parent().is_some_and(|directory| self.linked.lock().contains(directory));
        // A directory may hold matches deeper down.
        globs.iter().any(|glob| glob.matches(path) || glob.base().starts_with(path))
            || linked()
            || path.is_dir()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use notify::event::{AccessKind, CreateKind, DataChange};

    use super::*;

    #[test]
    fn reading_wakes_nothing_and_writing_names_the_file() {
        let woken = Arc::<AtomicUsize>::default();
        let events = EventQueue::new({
            let woken = Arc::clone(&woken);
            Box::new(move || {
                woken.fetch_add(1, Ordering::SeqCst);
            })
        });
        let globs = [Glob::new("/logs/*.log").unwrap()];
        let say = |kind, path: &str| events.receive(&globs, Ok(Event::new(kind).add_path(path.into())));
        say(EventKind::Access(AccessKind::Any), "/logs/a.log");
        say(EventKind::Create(CreateKind::File), "/logs/other.txt");
        say(EventKind::Create(CreateKind::File), "/elsewhere/b.log");
        let changes = events.take();
        assert!(changes.written.is_empty() && !changes.names);
        say(EventKind::Modify(ModifyKind::Data(DataChange::Any)), "/logs/a.log");
        assert!(events.take().written.contains(Path::new("/logs/a.log")));
        say(EventKind::Create(CreateKind::File), "/logs/b.log");
        assert!(events.take().names);
        events.set_linked(BTreeSet::from(["/elsewhere".into()]));
        say(EventKind::Create(CreateKind::File), "/elsewhere/b.log");
        assert!(events.take().names, "a link leads there");
        assert_eq!(woken.load(Ordering::SeqCst), 3);
    }
}
