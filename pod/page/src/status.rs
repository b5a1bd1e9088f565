//! What the neighbours say on `/status` (docs/contract.md, section 5), as far as the Pod page shows it.
//!
//! A neighbour may be of another version, or another program that keeps the contract: what it does not say is not shown.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::client::Answer;
use crate::snapshot::{Probes, Said};

/// What every container says.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Common {
    pub(crate) name: String,
    /// What the page shows of it as it is.
    #[serde(flatten)]
    pub(crate) said: Said,
    /// Older ones do not say.
    #[serde(default)]
    pub(crate) probes: Option<Probes>,
}

/// Has the answer of a container.
pub(crate) trait Status: DeserializeOwned {
    /// The container that answers like this.
    const NAME: &'static str;

    /// What it says that every container says.
    fn common(&self) -> &Common;

    /// Reads an answer.
    ///
    /// # Errors
    /// Where another program answers on that port.
    fn read(answer: &Answer) -> Result<Self, String> {
        let name = Self::NAME;
        let status = serde_json::from_slice::<Self>(&answer.body)
            .map_err(|_| format!("what answers on its port is not {name}"))?;
        let given = &status.common().name;
        if given == name { Ok(status) } else { Err(format!("{given} answers on the port of {name}")) }
    }
}

/// What file-puller says.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Puller {
    #[serde(flatten)]
    common: Common,
    /// Where the content comes from, without credentials.
    pub(crate) source: Option<String>,
    /// What was done for the release that was published last.
    pub(crate) publication: Option<Publication>,
    /// RFC 3339.
    pub(crate) next_sync: Option<String>,
    /// The content manager holds a question until there is a change.
    #[serde(default)]
    pub(crate) waiting: bool,
    /// Syncs that have failed since the last one that did not.
    #[serde(default)]
    pub(crate) failures_in_a_row: u32,
    /// The sync before.
    pub(crate) last_sync: Option<LastSync>,
}

/// What was done for a release.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Publication {
    pub(crate) release: String,
    /// The files that had to be fetched for it.
    pub(crate) fetched_files: u64,
}

/// A sync that ended.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct LastSync {
    /// RFC 3339.
    pub(crate) ended: String,
    /// How.
    pub(crate) outcome: Outcome,
}

/// How a sync ended.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Outcome {
    /// `published`, `unchanged` or `failed`.
    pub(crate) result: String,
    /// Why it failed.
    pub(crate) error: Option<String>,
}

impl Status for Puller {
    const NAME: &'static str = "file-puller";

    fn common(&self) -> &Common {
        &self.common
    }
}

/// What log-agent says.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Agent {
    #[serde(flatten)]
    common: Common,
    /// Where it ships to.
    #[serde(default)]
    pub(crate) sinks: Vec<Sink>,
    /// The files that it follows.
    #[serde(default)]
    pub(crate) files: Vec<FollowedFile>,
}

/// A file, as log-agent sees it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct FollowedFile {
    /// Its last name, where log-agent has the volume mounted.
    pub(crate) path: PathBuf,
    /// By sink, the bytes that it has confirmed or will never get.
    #[serde(default)]
    pub(crate) confirmed: BTreeMap<String, u64>,
    /// Whether it still has that name.
    #[serde(default)]
    pub(crate) named: bool,
}

/// A sink, as log-agent sees it.
#[derive(Debug, Clone, Deserialize)]
#[expect(clippy::struct_field_names, reason = "log-agent's name for it")]
pub(crate) struct Sink {
    /// Its URL without credentials.
    pub(crate) sink: String,
    /// Since log-agent started.
    pub(crate) confirmed_records: Option<u64>,
    /// Since log-agent started; older ones do not say.
    pub(crate) refused_records: Option<u64>,
    /// In files, for this sink.
    pub(crate) unconfirmed_bytes: Option<i64>,
    /// Since log-agent started.
    pub(crate) lost_bytes: Option<u64>,
    /// Where it does not confirm.
    pub(crate) failing: Option<Failing>,
}

/// A sink that does not confirm.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Failing {
    /// Why.
    pub(crate) reason: String,
}

impl Status for Agent {
    const NAME: &'static str = "log-agent";

    fn common(&self) -> &Common {
        &self.common
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::StatusCode;

    fn answer(body: &'static str) -> Answer {
        Answer { status: StatusCode::OK, body: body.into() }
    }

    #[test]
    fn the_container_that_answers_is_known_by_name() {
        let other = r#"{"name":"log-agent","version":"1","started":"","ready":true,"draining":false}"#;
        assert!(Agent::read(&answer(other)).is_ok());
        let error = Puller::read(&answer(other)).unwrap_err();
        assert_eq!(error, "log-agent answers on the port of file-puller");
        assert!(Puller::read(&answer("<html>")).unwrap_err().contains("is not file-puller"));
    }
}
