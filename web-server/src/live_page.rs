//! The live page's view of this server, and its responses as this server sends them. All else about the page is in `pod/page`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use http::Response;
use http::request::Parts;
use lifecycle::Container;
use lifecycle::admin::{Probed, Probes, Report as _};
use lifecycle::quality;
use pod_page::{Body, Counters, Format, Listing, LocalServer, PodPage, Served, Target};

use crate::content::root::Content;
use crate::http::body::{ByteStream, Payload};
use crate::memory::{Account, Share};
use crate::status::Status;

/// What a file takes in a listing besides its path: a place in a table of which up to half is free, and an allocation.
const LISTED: usize = 144;

/// This server, from inside.
#[derive(Debug)]
pub(crate) struct Local {
    pub(crate) container: Container,
    pub(crate) admin_port: u16,
    pub(crate) access_log: Option<PathBuf>,
    pub(crate) probes: Probes,
    pub(crate) status: Arc<Status>,
}

impl LocalServer for Local {
    fn container(&self) -> Container {
        self.container
    }

    fn admin_port(&self) -> u16 {
        self.admin_port
    }

    fn readiness(&self) -> Result<(), String> {
        self.status.readiness()
    }

    fn counters(&self) -> Counters {
        let metrics = &self.status.metrics;
        Counters {
            lines_written: metrics.access_log_lines.get(),
            lines_dropped: metrics.access_log_dropped.get(),
            answers: metrics.answered_by_class(),
        }
    }

    fn access_log(&self) -> Option<PathBuf> {
        self.access_log.clone()
    }

    fn probed(&self) -> Probed {
        self.probes.so_far()
    }

    fn served(&self) -> Option<Served> {
        let Content::Release(generation) = &*self.status.root.content() else { return None };
        let release = generation.release.id.as_str().to_owned();
        Some(Served { release, published: generation.release.since, files: generation.index.len() })
    }

    fn listing(&self) -> Option<Listing> {
        let Content::Release(generation) = &*self.status.root.content() else { return None };
        let mut memory = Share::new(&self.status.budget, Account::Index);
        let size: usize = generation.listing().map(|file| file.path.len() + LISTED).sum();
        memory.grow(size as u64).ok()?;
        let files =
            generation.listing().map(|file| (file.path.to_owned(), *file.digest.as_bytes())).collect();
        let release = generation.release.id.as_str().to_owned();
        Some(Listing { release, files, memory: Arc::new(memory) })
    }
}

/// Answers a request to the page.
pub(crate) async fn answer(
    page: &PodPage,
    target: Target,
    request: &Parts,
    peer: SocketAddr,
) -> Response<Payload> {
    page.answer(target, request, peer, format(request)).await.map(|body| match body {
        Body::Whole(bytes) => Payload::Held(bytes),
        Body::Stream(stream) => Payload::Stream(ByteStream::new(stream)),
    })
}

/// A browser names HTML; `*/*` alone is a program.
fn format(request: &Parts) -> Format {
    let quality = |media_type| quality::of_media_type(&request.headers, media_type);
    let html = quality::names_media_type(&request.headers, "text/html")
        && quality("text/html") >= quality("application/json");
    if html { Format::Html } else { Format::Json }
}
