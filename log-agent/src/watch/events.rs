//! What the kernel says about files, kept until the agent asks for it.

use std::collections::BTreeSet;
use std::path::PathBuf;

use notify::Event;
use notify::event::{EventKind, ModifyKind};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::glob::Glob;

/// What the kernel said since the last time it was asked.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Names have come or gone: scan.
    pub(crate) names: bool,
    /// These have been written to.
    pub(crate) written: BTreeSet<PathBuf>,
}

#[derive(Debug, Default)]
pub(super) struct EventQueue {
    changes: Mutex<Changes>,
    notify: Notify,
}

impl EventQueue {
    /// Waits until there is something to take.
    pub(super) async fn changed(&self) {
        self.notify.notified().await;
    }

    /// Takes what has come since the last time.
    pub(super) fn take(&self) -> Changes {
        std::mem::take(&mut *self.changes.lock())
    }

    pub(super) fn receive(&self, globs: &[Glob], event: notify::Result<Event>) {
        let mut changes = self.changes.lock();
        match event {
            // The kernel's queue ran over: anything may have happened.
            Ok(event) if event.need_rescan() => changes.names = true,
            Ok(event) => match event.kind {
                // Our own reading, and whatever does not change content.
                EventKind::Access(_) | EventKind::Modify(ModifyKind::Metadata(_)) => return,
                EventKind::Modify(ModifyKind::Data(_)) => changes.written.extend(event.paths),
                _ => {
                    let concerns = |path: &PathBuf| {
                        globs.iter().any(|glob| glob.matches(path) || glob.base().starts_with(path))
                    };
                    // A directory may hold matches deeper down.
                    if !event.paths.iter().any(|path| concerns(path) || path.is_dir()) {
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
        self.notify.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn reading_wakes_nobody_and_writing_names_the_file() {
        use notify::event::{AccessKind, CreateKind, DataChange};
        let events = EventQueue::default();
        let globs = [Glob::new("/logs/*.log").unwrap()];
        let say = |kind, path: &str| events.receive(&globs, Ok(Event::new(kind).add_path(path.into())));
        say(EventKind::Access(AccessKind::Any), "/logs/a.log");
        say(EventKind::Create(CreateKind::File), "/logs/other.txt");
        assert!(events.take().written.is_empty() && !events.take().names);
        say(EventKind::Modify(ModifyKind::Data(DataChange::Any)), "/logs/a.log");
        assert!(events.take().written.contains(Path::new("/logs/a.log")));
        say(EventKind::Create(CreateKind::File), "/logs/b.log");
        assert!(events.take().names);
    }
}
