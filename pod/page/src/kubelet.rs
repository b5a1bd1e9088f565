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
            for event in kubelet.events.iter().filter(|event| event.event == "started") {
                *starts.entry(event.container.clone()).or_default() += 1;
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
