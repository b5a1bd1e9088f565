//! What the kubelet of `cargo demo` does to the containers (docs/contract.md, `kubelet-events/1`).
//!
//! No cluster has such a file: there the kubelet's doings are Events of the API server, which no container can read without
//! credentials.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::SystemTime;

use lifecycle::blocking;

use crate::snapshot::Kubelet;

/// As many of the latest events as a page shows.
const SHOWN: usize = 100;

/// The file, and what was in it.
#[derive(Debug, Default)]
pub(crate) struct KubeletFile {
    path: Option<PathBuf>,
    modified: Option<SystemTime>,
    pub(crate) last: Option<Kubelet>,
    /// How often it has started each container.
    starts: HashMap<String, u32>,
}

impl KubeletFile {
    pub(crate) fn new(path: Option<PathBuf>) -> Self {
        Self { path, ..Self::default() }
    }

    /// How often a container was started again, where that is known.
    pub(crate) fn restarts(&self, container: &str) -> Option<u32> {
        self.starts.get(container).map(|starts| starts.saturating_sub(1))
    }

    /// Reads the file again where it has changed.
    pub(crate) async fn refresh(&mut self) {
        let Some(path) = self.path.clone() else { return };
        let before = self.modified;
        let read = blocking(move || {
            let modified = std::fs::metadata(&path)?.modified()?;
            if Some(modified) == before {
                return Ok(None);
            }
            let mut kubelet: Kubelet = serde_json::from_slice(&std::fs::read(&path)?)?;
            let mut starts = HashMap::new();
            // Of all events: what started long ago still runs.
            for event in &kubelet.events {
                match (event.event.as_str(), event.pid) {
                    ("started", pid) => {
                        *starts.entry(event.container.clone()).or_default() += 1;
                        kubelet.pids.extend(pid.map(|pid| (event.container.clone(), pid)));
                    }
                    ("ended" | "stopped" | "killed", _) => {
                        kubelet.pids.remove(&event.container);
                    }
                    _ => {}
                }
            }
            kubelet.events.drain(..kubelet.events.len().saturating_sub(SHOWN));
            std::io::Result::Ok(Some((modified, kubelet, starts)))
        });
        match read.await {
            Ok(None) => {}
            Ok(Some((modified, kubelet, starts))) => {
                (self.modified, self.last, self.starts) = (Some(modified), Some(kubelet), starts);
            }
            Err(error) => {
                tracing::debug!(%error, "the kubelet's events cannot be read: what was known stays");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_is_known_however_long_ago_it_was_started() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.json");
        let event = |container: &str, event: &str, pid: u32| serde_json::json!({"at": "2026-11-26T19:00:00.000Z", "container": container, "event": event, "text": "", "pid": pid});
        let mut events = vec![event("content-manager", "started", 7), event("log-agent", "started", 8)];
        events.extend(
            (10..210)
                .flat_map(|pid| [event("web-server", "started", pid), event("web-server", "ended", pid)]),
        );
        events.push(event("file-puller", "started", 300));
        events.push(event("log-agent", "stopped", 8));
        events.push(event("web-server", "started", 400));
        events.push(event("web-server", "killed", 400));
        let file = serde_json::json!({"format": "kubelet-events/1", "kubelet_pid": 1, "content": null, "events": events});
        std::fs::write(&path, file.to_string()).unwrap();
        let mut kubelet = KubeletFile::new(Some(path));
        kubelet.refresh().await;
        let known = kubelet.last.as_ref().unwrap();
        let running = [("content-manager".to_owned(), 7), ("file-puller".to_owned(), 300)];
        assert_eq!(known.pids, running.into());
        assert_eq!((known.events.len(), kubelet.restarts("web-server")), (SHOWN, Some(200)));
    }
}
