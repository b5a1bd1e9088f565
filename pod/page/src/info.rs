//! What the kubelet says about the Pod through the downward API: variables that stay, and files that it rewrites.

use std::path::PathBuf;
use std::time::Duration;

use lifecycle::blocking;
use lifecycle::downward;
use tokio::time::Instant;

use crate::flags::Flags;
use crate::snapshot::Pod;

/// How often labels and annotations are read again; the kubelet takes longer to write them.
const LABELS_PERIOD: Duration = Duration::from_secs(10);

/// What the kubelet says about the Pod.
#[derive(Debug)]
pub(super) struct PodInfo {
    /// As far as it is known.
    pub(super) pod: Pod,
    labels: Option<PathBuf>,
    annotations: Option<PathBuf>,
    read: Option<Instant>,
}

impl PodInfo {
    /// Reads the variables; the files come with the first refresh.
    pub(super) fn new(flags: &Flags, variable: impl Fn(&str) -> Option<String>) -> Self {
        // An empty variable is how a manifest says "not here".
        let variable = |name| variable(name).filter(|value| !value.is_empty());
        let pod = Pod {
            name: variable(downward::POD_NAME),
            namespace: variable(downward::POD_NAMESPACE),
            uid: variable(downward::POD_UID),
            node: variable(downward::NODE_NAME),
            ..Pod::default()
        };
        Self {
            pod,
            labels: flags.pod_labels_file.clone(),
            annotations: flags.pod_annotations_file.clone(),
            read: None,
        }
    }

    /// Reads labels and annotations again, now and then.
    pub(super) async fn refresh(&mut self) {
        if self.read.is_some_and(|at| at.elapsed() < LABELS_PERIOD) {
            return;
        }
        self.read = Some(Instant::now());
        let files = [self.labels.clone(), self.annotations.clone()];
        let read = blocking(move || files.map(|file| file.map(|file| (downward::pairs(&file), file))));
        let read = read.await;
        for (found, into) in read.into_iter().zip([&mut self.pod.labels, &mut self.pod.annotations]) {
            match found {
                None => {}
                Some((Ok(pairs), _)) => *into = pairs.into_iter().collect(),
                Some((Err(error), file)) => {
                    tracing::debug!(file = %file.display(), %error, "cannot be read: what was known stays");
                }
            }
        }
    }
}
