//! A gate of the operator's own: `--gate URL` is asked before a release is published.
//!
//! The question is a `POST` with the release's manifest as its body. Headers name the release, the source, the source's commit
//! where it has one, and where the staged tree lies, so that a neighbour that mounts the volume can look at the files
//! themselves. An answer of 2xx lets the release pass. Everything else holds it back, silence included: the question is asked
//! again with the next sync, and what is published stays.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use lifecycle::escape::escaped;
use lifecycle::exit::Exit;
use reqwest::{Body, Client};

use super::gate::Gates;
use crate::content::ReleaseId;
use crate::source::{ClientError, HookUrl, Source, Tls, causes, client_for};

const RELEASE: HeaderName = HeaderName::from_static("sidecar-release");
const SOURCE: HeaderName = HeaderName::from_static("sidecar-source");
const COMMIT: HeaderName = HeaderName::from_static("sidecar-commit");
const TREE: HeaderName = HeaderName::from_static("sidecar-tree");

/// How much of an answer is shown as its reason.
const SHOWN: usize = 200;
/// How much of a manifest is in memory while it is sent.
const CHUNK: usize = 64 * 1024;

/// The gate that `--gate` names.
#[derive(Debug)]
pub(crate) struct HttpGate {
    client: Client,
    url: HookUrl,
    timeout: Duration,
    /// The source's URL as it may be shown.
    source: String,
}

/// Why a release does not pass.
#[derive(Debug, thiserror::Error)]
#[error("release held back: --gate {gate} {why}")]
pub(crate) struct HttpGateError {
    gate: HookUrl,
    why: String,
    /// Tells a gate that refuses from one that cannot be reached.
    pub(super) exit: Exit,
}

impl HttpGate {
    /// The gate of these flags, if there is one. It trusts the same roots as the source.
    pub(crate) fn new(gates: &Gates, source: &Source) -> Result<Option<Self>, ClientError> {
        let Some(url) = gates.gate.clone() else { return Ok(None) };
        let timeout = gates.gate_timeout;
        let client = client_for(Tls::of(url.url()), timeout, &source.tls_pems())?;
        // Each question on a connection of its own: one that is asked again and again would never look the name up again.
        let client = client.pool_max_idle_per_host(0).build()?;
        Ok(Some(Self { client, url, timeout, source: source.url().to_string() }))
    }

    /// Asks whether a release may be published, whose tree and manifest lie in this directory; `commit` is of a git repository.
    pub(crate) async fn ask(
        &self,
        release: &ReleaseId,
        directory: &Path,
        commit: Option<&str>,
    ) -> Result<(), HttpGateError> {
        let answer = tokio::time::timeout(self.timeout, self.send(release, directory, commit)).await;
        let timeout = humantime::format_duration(self.timeout);
        let silent = |_| Err((Exit::Unavailable, format!("did not answer within --gate-timeout {timeout}")));
        answer.unwrap_or_else(silent).map_err(|(exit, why)| HttpGateError {
            gate: self.url.clone(),
            why,
            exit,
        })
    }

    async fn send(
        &self,
        release: &ReleaseId,
        directory: &Path,
        commit: Option<&str>,
    ) -> Result<(), (Exit, String)> {
        let manifest = File::open(directory.join(format!("{release}.json")));
        let (length, manifest) =
            manifest.and_then(|file| Ok((file.metadata()?.len(), file))).map_err(|error| {
                (Exit::Io, format!("cannot be asked, because the manifest cannot be read: {error}"))
            })?;
        let mut request = self
            .client
            .post(self.url.url().clone())
            .header(CONTENT_TYPE, "application/json")
            .header(CONTENT_LENGTH, length)
            .header(RELEASE, release.as_str());
        let source = HeaderValue::from_str(&self.source);
        let tree = directory.join(release.as_str());
        let tree = HeaderValue::from_bytes(tree.as_os_str().as_encoded_bytes());
        let commit = commit.map(HeaderValue::from_str);
        for (name, value) in [(SOURCE, Some(source)), (TREE, Some(tree)), (COMMIT, commit)] {
            if let Some(Ok(value)) = value {
                request = request.header(name, value);
            }
        }
        let answer = request.body(Body::wrap_stream(stream::iter(chunks(manifest)))).send().await;
        let mut answer =
            answer.map_err(|error| (Exit::Unavailable, format!("cannot be asked: {}", causes(&error))))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        // Its first words, where they come; a gate may be sparing with them.
        let first = answer.chunk().await.ok().flatten().unwrap_or_default();
        let first = String::from_utf8_lossy(&first[..first.len().min(SHOWN)]);
        let line = first.trim().lines().next().unwrap_or_default();
        let reason = if line.is_empty() { String::new() } else { format!(": {}", escaped(line)) };
        Err((Exit::Refused, format!("answers {status}{reason}")))
    }
}

/// A file in parts, so that the manifest of a hundred thousand files is not in memory a second time.
fn chunks(mut file: File) -> impl Iterator<Item = io::Result<Bytes>> {
    std::iter::from_fn(move || {
        let mut chunk = vec![0; CHUNK];
        match file.read(&mut chunk) {
            Ok(0) => None,
            Ok(read) => {
                chunk.truncate(read);
                Some(Ok(chunk.into()))
            }
            Err(error) => Some(Err(error)),
        }
    })
}
