//! What this Pod's containers are told of their Pod: the downward API.
//!
//! A kubelet has two ways. What stays as it is while the Pod lives comes in environment variables. Labels and annotations
//! may change, so they come in files of a volume. Here they do not change.

use std::io;
use std::path::{Path, PathBuf};

/// The Pod's name in the records that log-agent ships, and on the live page.
pub(crate) const POD_NAME: &str = "sidecar-pod-demo";

/// As the template of `deploy/kubernetes/base-native` has them.
const LABELS: [(&str, &str); 1] = [("app.kubernetes.io/name", "sidecar-pod")];
const ANNOTATIONS: [(&str, &str); 1] = [("kubectl.kubernetes.io/default-container", "web-server")];

/// One Pod's metadata, as its containers get to see it.
#[derive(Debug, Clone)]
pub(crate) struct Downward {
    /// The file of labels: one `name="value"` a line, as the kubelet writes it.
    pub(crate) labels: PathBuf,
    /// The file of annotations.
    pub(crate) annotations: PathBuf,
    /// The file of the kubelet's events. No cluster has such a file; here it is for the live page.
    pub(crate) events: PathBuf,
    uid: String,
}

impl Downward {
    /// Writes the files into the folder `podinfo`, and makes up the uid: a Pod that is started again is another Pod.
    ///
    /// # Errors
    /// As the file system gives them.
    pub(crate) fn create_in(podinfo: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(podinfo)?;
        let file = |name: &str, pairs: &[(&str, &str)]| {
            let lines: Vec<String> =
                pairs.iter().map(|(name, value)| format!("{name}=\"{value}\"\n")).collect();
            let path = podinfo.join(name);
            std::fs::write(&path, lines.concat()).map(|()| path)
        };
        Ok(Self {
            labels: file("labels", &LABELS)?,
            annotations: file("annotations", &ANNOTATIONS)?,
            events: podinfo.join("events.json"),
            uid: std::fs::read_to_string("/proc/sys/kernel/random/uuid")?.trim().to_owned(),
        })
    }

    /// The variables, by the names that Pods use by custom.
    pub(crate) fn variables(&self) -> Vec<(&'static str, String)> {
        let node = rustix::system::uname().nodename().to_string_lossy().into_owned();
        vec![
            ("POD_NAME", POD_NAME.to_owned()),
            ("POD_NAMESPACE", "default".to_owned()),
            ("POD_UID", self.uid.clone()),
            ("NODE_NAME", node),
        ]
    }
}
