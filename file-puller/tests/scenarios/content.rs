//! A content manager for tests: a site in memory, its manifest, and whatever a test makes it do wrong.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use percent_encoding::percent_decode_str;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use testkit::http::Message;
use testkit::{Answer, Upstream};

/// The files that a content manager has: path → (mode, content).
pub(crate) type Tree = BTreeMap<String, (u32, Vec<u8>)>;

/// What is served, and its manifest's time.
#[derive(Clone)]
pub(crate) struct Site {
    pub(crate) files: Tree,
    created: u32,
}

/// An upstream that serves a site under `/site/`.
pub(crate) struct ContentManager {
    pub(crate) upstream: Upstream,
    site: Arc<Mutex<Site>>,
}

impl Site {
    pub(crate) fn manifest(&self) -> String {
        let files: Vec<_> = self
            .files
            .iter()
            .map(|(path, (mode, content))| {
                json!({"path": path, "size": content.len(), "sha256": sha256(content), "mode": format!("{mode:04o}")})
            })
            .collect();
        let created = format!("2026-11-23T18:00:{:02}Z", self.created);
        json!({"format": "sidecar-manifest/1", "created": created, "files": files}).to_string()
    }

    /// The manifest's.
    pub(crate) fn etag(&self) -> String {
        format!("\"{}\"", sha256(self.manifest().as_bytes()))
    }

    /// As a correct content manager answers.
    pub(crate) fn answer(&self, request: &Message) -> Answer {
        let target = request.target().split('?').next().unwrap_or_default();
        let path = target.strip_prefix("/site/").unwrap_or_default();
        if path == "manifest.json" {
            let (manifest, etag) = (self.manifest(), self.etag());
            if request.header("if-none-match") == Some(&etag) {
                return Answer::new(304, "").with("ETag", &etag);
            }
            return Answer::new(200, manifest).with("ETag", &etag);
        }
        let path = percent_decode_str(path).decode_utf8().expect("paths are UTF-8");
        match self.files.get(&*path) {
            Some((_, content)) => {
                Answer::new(200, content.clone()).with("ETag", &format!("\"{}\"", sha256(content)))
            }
            None => Answer::new(404, ""),
        }
    }
}

impl ContentManager {
    /// Serves these files.
    pub(crate) fn start(files: &[(&str, &str)]) -> Self {
        let files = files.iter().map(|(path, text)| ((*path).to_owned(), (0o644, text.as_bytes().to_vec())));
        let site = Arc::new(Mutex::new(Site { files: files.collect(), created: 0 }));
        let serving = Arc::clone(&site);
        let upstream = Upstream::start(move |request| {
            let site = serving.lock().expect("no holder panics").clone();
            site.answer(request)
        });
        Self { upstream, site }
    }

    /// Answers with what `fault` says, or correctly where it says nothing.
    pub(crate) fn fault(&self, fault: impl Fn(&Message, &Site) -> Option<Answer> + Send + Sync + 'static) {
        let serving = Arc::clone(&self.site);
        self.upstream.answer(move |request| {
            let site = serving.lock().expect("no holder panics").clone();
            fault(request, &site).unwrap_or_else(|| site.answer(request))
        });
    }

    /// Answers correctly again.
    pub(crate) fn recover(&self) {
        self.fault(|_, _| None);
    }

    /// Answers as one that can wait: holds a conditional request with `Prefer: wait=N` until the manifest is another one, or N seconds.
    /// What it answers then is `dress`'s to change.
    pub(crate) fn waits(&self, dress: impl Fn(Answer) -> Answer + Send + Sync + 'static) {
        let serving = Arc::clone(&self.site);
        self.upstream.answer(move |request| {
            let site = || serving.lock().expect("no holder panics").clone();
            let Some(wait) = request.header("prefer").and_then(|prefer| prefer.strip_prefix("wait=")) else {
                return site().answer(request);
            };
            let until = Instant::now() + Duration::from_secs(wait.parse().expect("whole seconds"));
            let known = request.header("if-none-match");
            let is_known = |site: &Site| known == Some(&*site.etag());
            while is_known(&site()) && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(5));
            }
            dress(site().answer(request).with("Preference-Applied", "wait"))
        });
    }

    /// Whether a request asks to be held.
    pub(crate) fn is_held(request: &Message) -> bool {
        request.header("prefer").is_some_and(|prefer| prefer != "wait=0")
    }

    pub(crate) fn url(&self) -> String {
        self.upstream.url("/site/manifest.json")
    }

    pub(crate) fn site(&self) -> MutexGuard<'_, Site> {
        self.site.lock().expect("no holder panics")
    }

    pub(crate) fn put(&self, path: &str, content: impl Into<Vec<u8>>) {
        self.site().files.insert(path.to_owned(), (0o644, content.into()));
    }

    pub(crate) fn remove(&self, path: &str) {
        self.site().files.remove(path).expect("it was there");
    }

    /// The same files, in a manifest of another time.
    pub(crate) fn touch(&self) {
        self.site().created += 1;
    }

    /// Paths that were asked for, in order.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.upstream.requests().iter().map(|request| request.target().to_owned()).collect()
    }
}

pub(crate) fn sha256(content: &[u8]) -> String {
    format!("{:x}", bytes::Bytes::from(Sha256::digest(content).to_vec()))
}
