//! Who speaks: the resource attributes that every record carries, from the downward API's variables and from `--label`.

use std::collections::BTreeMap;
use std::str::FromStr;

/// The downward API's variables, as Pods name them by custom, and OpenTelemetry's names for what they hold.
const DOWNWARD_API: [(&str, &str); 4] = [
    ("POD_NAME", "k8s.pod.name"),
    ("POD_NAMESPACE", "k8s.namespace.name"),
    ("POD_UID", "k8s.pod.uid"),
    ("NODE_NAME", "k8s.node.name"),
];

/// One `--label`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
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

/// The attributes of everything that this agent ships.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    attributes: BTreeMap<String, String>,
}

impl Resource {
    /// From the environment, then from the labels, which win.
    pub fn new(environment: impl Fn(&str) -> Option<String>, labels: &[Label]) -> Self {
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

    /// As a JSON object.
    pub fn json(&self) -> String {
        serde_json::json!(self.attributes).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
