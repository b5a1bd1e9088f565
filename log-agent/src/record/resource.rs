//! Who speaks: the resource attributes that every record carries, from the downward API's variables and files and from
//! `--label`.
//!
//! The kubelet rewrites the files when the Pod's labels change; they are read again at every scan.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use parking_lot::Mutex;

use lifecycle::downward;

/// The downward API's variables, and OpenTelemetry's names for what they hold.
const DOWNWARD_API: [(&str, &str); 4] = [
    (downward::POD_NAME, "k8s.pod.name"),
    (downward::POD_NAMESPACE, "k8s.namespace.name"),
    (downward::POD_UID, "k8s.pod.uid"),
    (downward::NODE_NAME, "k8s.node.name"),
];

/// One `--label`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Label {
    name: String,
    value: String,
}

impl FromStr for Label {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, value)) if !name.trim().is_empty() => {
                Ok(Self { name: name.trim().to_owned(), value: value.to_owned() })
            }
            _ => Err("a label is written name=value".to_owned()),
        }
    }
}

/// Files of the downward API's volume.
#[derive(Debug, Clone, PartialEq, Eq, Default, clap::Args)]
pub(crate) struct PodFiles {
    /// The Pod's labels as the downward API writes them into a volume; they become k8s.pod.label.NAME
    #[arg(long = "pod-labels-file", value_name = "FILE")]
    labels: Option<PathBuf>,

    /// The Pod's annotations, likewise; they become k8s.pod.annotation.NAME
    #[arg(long = "pod-annotations-file", value_name = "FILE")]
    annotations: Option<PathBuf>,
}

impl PodFiles {
    /// What is in them now, by OpenTelemetry's names; a file that cannot be read is an error with its path.
    fn read(&self) -> Result<BTreeMap<String, String>, String> {
        let mut attributes = BTreeMap::new();
        for (file, prefix) in [(&self.labels, "k8s.pod.label."), (&self.annotations, "k8s.pod.annotation.")] {
            let Some(file) = file else { continue };
            let pairs = downward::pairs(file).map_err(|error| format!("{}: {error}", file.display()))?;
            attributes.extend(pairs.into_iter().map(|(name, value)| (format!("{prefix}{name}"), value)));
        }
        Ok(attributes)
    }
}

/// The resource as it is now: written by the loop, read by the sinks.
#[derive(Debug, Clone)]
pub(crate) struct SharedResource(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// From the environment and from labels.
    fixed: Arc<Resource>,
    files: PodFiles,
    now: Mutex<Now>,
}

#[derive(Debug)]
struct Now {
    resource: Arc<Resource>,
    failure: Option<String>,
}

impl SharedResource {
    /// What is fixed, and what is in the files now.
    pub(crate) fn new(fixed: Resource, files: PodFiles) -> Self {
        let fixed = Arc::new(fixed);
        let now = Now { resource: Arc::clone(&fixed), failure: None };
        let shared = Self(Arc::new(Shared { fixed, files, now: Mutex::new(now) }));
        shared.refresh();
        shared
    }

    /// One that stays as it is.
    pub(crate) fn fixed(resource: Resource) -> Self {
        Self::new(resource, PodFiles::default())
    }

    pub(crate) fn now(&self) -> Arc<Resource> {
        Arc::clone(&self.0.now.lock().resource)
    }

    /// Reads the files again. Where they cannot be read, what was known stays.
    pub(crate) fn refresh(&self) {
        let Shared { fixed, files, now } = &*self.0;
        if *files == PodFiles::default() {
            return;
        }
        let found = files.read();
        let mut now = now.lock();
        match found {
            Ok(mut attributes) => {
                attributes.extend(fixed.attributes.clone());
                if now.resource.attributes != attributes {
                    now.resource = Arc::new(Resource { attributes });
                }
                now.failure = None;
            }
            Err(error) if now.failure.as_ref() != Some(&error) => {
                tracing::warn!(
                    error,
                    "cannot read the Pod's labels or annotations: those that were known stay"
                );
                now.failure = Some(error);
            }
            Err(_) => {}
        }
    }
}

/// The attributes of everything that this agent ships.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Resource {
    attributes: BTreeMap<String, String>,
}

impl Resource {
    /// From the environment, then from the labels, which win.
    pub(crate) fn new(environment: impl Fn(&str) -> Option<String>, labels: &[Label]) -> Self {
        let mut attributes = BTreeMap::new();
        for (variable, name) in DOWNWARD_API {
            // An empty variable is how a manifest says "not here".
            if let Some(value) = environment(variable).filter(|value| !value.is_empty()) {
                attributes.insert(name.to_owned(), value);
            }
        }
        attributes.extend(labels.iter().map(|label| (label.name.clone(), label.value.clone())));
        Self { attributes }
    }

    /// Names and values, sorted by name.
    pub(crate) fn attributes(&self) -> impl Iterator<Item = (&str, &str)> {
        self.attributes.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// From a JSON object, as [`Resource::json`] writes it.
    pub(crate) fn from_json(text: &[u8]) -> Result<Self, &'static str> {
        let attributes = serde_json::from_slice(text).map_err(|_| "its resource is no object of strings")?;
        Ok(Self { attributes })
    }

    pub(crate) fn json(&self) -> String {
        serde_json::json!(self.attributes).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_again_and_labels_win() {
        let dir = tempfile::tempdir().unwrap();
        let files = PodFiles { labels: Some(dir.path().join("labels")), annotations: None };
        let fixed = Resource::new(|_| None, &["k8s.pod.label.app=fixed".parse().unwrap()]);
        let shared = SharedResource::new(fixed, files);
        assert_eq!(shared.now().json(), r#"{"k8s.pod.label.app":"fixed"}"#);
        std::fs::write(dir.path().join("labels"), "app=\"web\"\ntier=\"a\\\"b\\n\"\n").unwrap();
        shared.refresh();
        let expected = r#"{"k8s.pod.label.app":"fixed","k8s.pod.label.tier":"a\"b\n"}"#;
        assert_eq!(shared.now().json(), expected);
        std::fs::remove_file(dir.path().join("labels")).unwrap();
        shared.refresh();
        assert_eq!(shared.now().json(), expected);
    }

    #[test]
    fn the_environment_then_the_labels() {
        let environment = |name: &str| match name {
            "POD_NAME" => Some("web-0".to_owned()),
            "POD_UID" => Some(String::new()),
            _ => None,
        };
        let labels = ["service.name=web", "k8s.pod.name=other=x"].map(|label| label.parse().unwrap());
        let resource = Resource::new(environment, &labels);
        assert_eq!(resource.json(), r#"{"k8s.pod.name":"other=x","service.name":"web"}"#);
        assert!("nothing".parse::<Label>().is_err());
        assert!("=x".parse::<Label>().is_err());
    }
}
