//! Notices that the root has become something else.
//!
//! The swap of a link is an event in the directory that holds the link, so that is what is watched, and nothing beneath it. The
//! slow poll is for what a watch cannot see: a file system without events, a directory that does not exist yet or was
//! made again under the same name.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lifecycle::Ignore as _;
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::{Notify, oneshot};

use crate::content::root::{ContentRoot, KUBELET_LINK, kubelet_link};

/// How long a swap may go unseen where events fail.
const POLL: Duration = Duration::from_secs(2);

/// Follows the root until the task is dropped.
pub(crate) async fn follow(root: Arc<ContentRoot>) {
    let stirred = Arc::new(Notify::new());
    let mut watcher = watcher(root.path(), &stirred);
    loop {
        for directory in watched(root.path()) {
            if let Some(watcher) = &mut watcher {
                // Watching what is watched already costs one system call, and is how a directory that was made again is
                // found again. One that does not exist yet is what the poll is for.
                if let Err(error) = watcher.watch(&directory, RecursiveMode::NonRecursive) {
                    tracing::debug!(directory = %directory.display(), %error, "not watched, only polled");
                }
            }
        }
        let looking = Arc::clone(&root);
        in_background(move || looking.refresh()).await;
        tokio::select! {
            () = stirred.notified() => {}
            () = tokio::time::sleep(POLL) => {}
        }
    }
}

/// Does what takes long on a thread of its own: loading a release reads files and hashes them, and requests are served meanwhile.
/// The thread ends with the work, so a large release can lower its priority.
async fn in_background(work: impl FnOnce() + Send + 'static) {
    let (done, finished) = oneshot::channel();
    let thread = std::thread::Builder::new().name("load".to_owned()).spawn(move || {
        work();
        // The one that asked may be gone, because the server ends.
        done.send(()).ignore();
    });
    match thread {
        Ok(_) => finished.await.ignore(),
        Err(error) => tracing::warn!(%error, "cannot start a thread to load the content; trying again"),
    }
}

fn watcher(root: &Path, stirred: &Arc<Notify>) -> Option<RecommendedWatcher> {
    let (root, stirred) = (root.to_owned(), Arc::clone(stirred));
    let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        // What goes wrong with the watch itself is a reason to look, too.
        if event.map_or(true, |event| concerns(&root, &event)) {
            stirred.notify_one();
        }
    });
    watcher
        .inspect_err(|error| tracing::warn!(%error, "no file events, so a swap is seen within {POLL:?}"))
        .ok()
}

/// Whether an event may be about the root: neighbours in its directory, such as an access log that is written all the time, are
/// no reason to look.
fn concerns(root: &Path, event: &Event) -> bool {
    // Reading is no change; our own reading would wake us again and again.
    if event.kind.is_access() {
        return false;
    }
    let link = |path: &PathBuf| {
        let name = path.file_name();
        name == root.file_name() || name.is_some_and(|name| name == KUBELET_LINK) || root.starts_with(path)
    };
    event.need_rescan() || event.paths.is_empty() || event.paths.iter().any(link)
}

fn watched(root: &Path) -> Vec<PathBuf> {
    let beside = match root.parent() {
        Some(parent) if parent.as_os_str().is_empty() => PathBuf::from("."),
        Some(parent) => parent.to_owned(),
        None => root.to_owned(),
    };
    let mut directories = vec![beside];
    if kubelet_link(root).is_some() {
        directories.push(root.to_owned());
    }
    directories
}

#[cfg(test)]
mod tests {
    use super::*;
    use notify::EventKind;
    use notify::event::{AccessKind, CreateKind, DataChange, ModifyKind, RenameMode};

    #[test]
    fn neighbours_are_nobodys_reason_to_look() {
        let root = Path::new("/volume/current");
        let event = |kind, path: &str| Event::new(kind).add_path(path.into());
        let renamed = EventKind::Modify(ModifyKind::Name(RenameMode::To));
        let written = EventKind::Modify(ModifyKind::Data(DataChange::Any));
        assert!(concerns(root, &event(renamed, "/volume/current")));
        assert!(concerns(root, &event(renamed, "/volume/current/..data")));
        assert!(concerns(root, &event(EventKind::Create(CreateKind::Folder), "/volume")));
        assert!(concerns(root, &Event::new(EventKind::Other)));
        assert!(!concerns(root, &event(written, "/volume/access.log")));
        assert!(!concerns(root, &event(renamed, "/volume/releases")));
        assert!(!concerns(root, &event(EventKind::Access(AccessKind::Any), "/volume/current")));
        let two = event(renamed, "/volume/.tmp").add_path("/volume/current".into());
        assert!(concerns(root, &two));
    }
}
