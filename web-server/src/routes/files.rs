//! Content: files, redirects to directories, listings, and what is answered where nothing is.

use std::io;
use std::sync::Arc;

use http::header::VARY;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use lifecycle::{blocking, quality};

use crate::content::generation::Found;
use crate::content::header_policy::HeaderPolicy;
use crate::content::path::{ContentPath, Rejected, relative};
use crate::content::redirects::{Action, When};
use crate::content::release::ReleaseId;
use crate::content::representation::Representation;
use crate::content::root::{Content, ContentRoot};
use crate::http::body::Payload;
use crate::http::cors::Cors;
use crate::http::response::{Name, Reply, explain, plain, redirect, represent, unavailable};
use crate::memory::{Budget, NoRoom};
use crate::metrics::Metrics;
use crate::routes::autoindex::{self, Oversized};
use crate::routes::redirects::RedirectsFile;

/// Fetch Metadata: what a browser is going to do with the answer.
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
/// The page for what is not there, from the same content.
const NOT_FOUND_PAGE: &str = "/404.html";
/// What a client is told whose listing does not fit into memory.
const NO_ROOM_FOR_LISTING: &str = "the directory cannot be listed right now";
/// How many releases may be removed under one request.
const REPLACEMENTS: usize = 8;

/// Answers with files.
#[derive(Debug)]
pub(crate) struct Files {
    pub(crate) root: Arc<ContentRoot>,
    /// Whether a directory without an index shows what is in it.
    pub(crate) autoindex: bool,
    /// Whether `/about` is `about.html`.
    pub(crate) clean_urls: bool,
    /// What a navigation gets that leads to nothing.
    pub(crate) fallback: Option<ContentPath>,
    /// Where a release's own rules are followed.
    pub(crate) redirects: Option<RedirectsFile>,
    pub(crate) cors: Cors,
    pub(crate) header_policy: Arc<HeaderPolicy>,
    pub(crate) metrics: Arc<Metrics>,
    /// The memory that listings are charged to.
    pub(crate) budget: Arc<Budget>,
    /// Says which listings did not fit.
    pub(crate) oversized: Oversized,
}

impl Files {
    /// Answers a GET or HEAD request from `site`.
    pub(super) async fn answer(
        &self,
        request: &Parts,
        path: Result<&ContentPath, Rejected>,
        site: &Arc<Content>,
    ) -> Reply {
        let mut reply = self.replaceable(request, path, site).await;
        if reply.response.status().is_success() {
            match reply.response.body() {
                Payload::Empty => {}
                body if body.has_file() => _ = self.metrics.from_volume.inc(),
                _ => _ = self.metrics.from_memory.inc(),
            }
        }
        self.cors.apply(request, reply.response.headers_mut());
        self.header_policy.apply(reply.response.headers_mut());
        reply
    }

    /// Answers from `site`, or where its release has been removed from the volume, from the one that replaces it: git-sync removes
    /// a tree as soon as the link names the next.
    async fn replaceable(
        &self,
        request: &Parts,
        path: Result<&ContentPath, Rejected>,
        site: &Arc<Content>,
    ) -> Reply {
        let mut site = Arc::clone(site);
        let mut replacements = 0..REPLACEMENTS;
        loop {
            let error = match self.content(request, path, &site).await {
                Ok(reply) => return reply,
                Err(error) => error,
            };
            let is_gone = error.kind() == io::ErrorKind::NotFound && replacements.next().is_some();
            let next = if is_gone { self.root.replacement(&site).await } else { None };
            let Some(next) = next else {
                return Reply { response: failed(request.uri.path(), &error), release: site.release() };
            };
            site = next;
        }
    }

    /// # Errors
    /// `NotFound` where a file is not where its release was.
    async fn content(
        &self,
        request: &Parts,
        path: Result<&ContentPath, Rejected>,
        site: &Arc<Content>,
    ) -> io::Result<Reply> {
        let path = match path {
            Ok(path) => path,
            Err(Rejected::Malformed) => {
                return Ok(plain(StatusCode::BAD_REQUEST, "the path is not well-formed\n").into());
            }
            Err(Rejected::NotFound) => return not_found(site).await,
        };
        if let Content::Waiting(reason) = &**site {
            return Ok(unavailable(reason).into());
        }
        let rules = match &self.redirects {
            Some(_) if RedirectsFile::is_at(path) => return not_found(site).await,
            Some(file) => file.of(site).await?,
            None => None,
        };
        // Nothing is looked for that a rule hides: it may have to be hashed first, or cannot be read.
        if let Some(action) = rules.as_ref().and_then(|rules| rules.find_forced(path)) {
            return self.act(request, site, action).await;
        }
        let (found, name) = self.resolve(site, path).await?;
        // A page that was loaded a moment ago may mean an asset that was there then.
        let stale = match found {
            Found::Nothing => stale_asset(site, path),
            Found::File(_) | Found::Directory => None,
        };
        let is_found = stale.is_some() || !matches!(found, Found::Nothing);
        let rule = |when| rules.as_ref().and_then(|rules| rules.find(path, when));
        if is_found && let Some(action) = rule(When::File) {
            return self.act(request, site, action).await;
        }
        let response = match found {
            Found::File(representation) => represent(request, &representation, name).await?,
            Found::Directory => {
                let target = path.as_directory_target();
                redirect(StatusCode::PERMANENT_REDIRECT, &target, request.uri.query())
            }
            Found::Nothing => {
                // The release of a stale asset may be gone from the volume by now, which is no failure.
                if let Some((release, asset)) = stale
                    && let Ok(response) = represent(request, &asset, Name::Own).await
                {
                    return Ok(Reply { response, release: Some(release) });
                }
                return match rule(When::NoFile) {
                    Some(action) => self.act(request, site, action).await,
                    None => self.missing(request, site, path).await,
                };
            }
        };
        Ok(Reply { response, release: site.release() })
    }

    /// What a path stands for, and whether that is a file of this name.
    async fn resolve(&self, site: &Arc<Content>, path: &ContentPath) -> io::Result<(Found, Name)> {
        let found = site.find(path).await?;
        if self.clean_urls
            && !matches!(found, Found::File(_))
            && let Some(page) = path.as_page()
            && let Found::File(page) = site.find(&page).await?
        {
            return Ok((Found::File(page), Name::Other));
        }
        Ok((found, Name::Own))
    }

    /// Does what a rule of the release says.
    async fn act(&self, request: &Parts, site: &Arc<Content>, action: Action) -> io::Result<Reply> {
        let response = match action {
            Action::Redirect(status, target) => {
                let here = target.starts_with('/');
                let target = if here { relative(request.uri.path(), &target) } else { target };
                redirect(status, &target, request.uri.query())
            }
            Action::Serve(status, path) => match self.target(site, &path).await? {
                Some(file) if status == StatusCode::OK => represent(request, &file, Name::Other).await?,
                Some(page) => explain(status, &page).await?,
                None => return not_found(site).await,
            },
        };
        Ok(Reply { response, release: site.release() })
    }

    /// The file that a request for this path would get in the end.
    async fn target(
        &self,
        site: &Arc<Content>,
        path: &ContentPath,
    ) -> io::Result<Option<Arc<Representation>>> {
        let found = match self.resolve(site, path).await?.0 {
            Found::Directory => site.find(&path.as_directory()).await?,
            found => found,
        };
        Ok(match found {
            Found::File(file) if !RedirectsFile::is_at(path) => Some(file),
            Found::File(_) | Found::Directory | Found::Nothing => None,
        })
    }

    /// Nothing has this name, and no rule is about it. A directory may be listed, and a navigation may be an application's own
    /// business.
    async fn missing(&self, request: &Parts, site: &Arc<Content>, path: &ContentPath) -> io::Result<Reply> {
        if self.autoindex && !path.may_be_redirected() {
            let (of, directory) = (Arc::clone(site), path.requested().to_owned());
            let form = autoindex::Form::wanted(&request.headers);
            let budget = Arc::clone(&self.budget);
            let listing = match blocking(move || autoindex::list(&of, &directory, form, &budget)).await {
                Err(error) if NoRoom::is_cause_of(&error) => {
                    self.oversized.note(request.uri.path());
                    return Ok(unavailable(NO_ROOM_FOR_LISTING).into());
                }
                listing => listing?,
            };
            if let Some(listing) = listing {
                let mut response = represent(request, &listing, Name::Other).await?;
                response.headers_mut().append(VARY, HeaderValue::from_static("accept"));
                return Ok(Reply { response, release: site.release() });
            }
        }
        if let Some(fallback) = &self.fallback
            && !path.has_extension()
            && is_navigation(&request.headers)
            && let Found::File(application) = site.find(fallback).await?
        {
            let mut response = represent(request, &application, Name::Other).await?;
            response.headers_mut().append(VARY, HeaderValue::from_static("accept, sec-fetch-mode"));
            return Ok(Reply { response, release: site.release() });
        }
        not_found(site).await
    }
}

/// Whether a person goes to a page. Scripts, images and programs also ask for paths without an extension, and must not get a
/// page for an answer.
fn is_navigation(headers: &HeaderMap) -> bool {
    headers.get(SEC_FETCH_MODE).is_none_or(|mode| mode == "navigate")
        && quality::names_media_type(headers, "text/html")
}

/// A file that a release before had under this name.
fn stale_asset(site: &Content, path: &ContentPath) -> Option<(ReleaseId, Arc<Representation>)> {
    let Content::Release(generation) = site else { return None };
    path.may_be_redirected().then(|| generation.stale_asset(path.file())).flatten()
}

/// Answers with what a puller asks for by a name that the manifest gives to it, now and perhaps to something else later.
pub(super) async fn sent(request: &Parts, found: io::Result<Arc<Representation>>) -> Response<Payload> {
    let response = match found {
        Ok(representation) => represent(request, &representation, Name::Other).await,
        Err(error) => Err(error),
    };
    response.unwrap_or_else(|error| failed(request.uri.path(), &error))
}

/// 404, with the content's own page for it where there is one.
async fn not_found(site: &Arc<Content>) -> io::Result<Reply> {
    if let Content::Waiting(reason) = &**site {
        return Ok(unavailable(reason).into());
    }
    let response = if let Ok(page) = ContentPath::from_target(NOT_FOUND_PAGE)
        && let Found::File(page) = site.find(&page).await?
    {
        explain(StatusCode::NOT_FOUND, &page).await?
    } else {
        plain(StatusCode::NOT_FOUND, "not found\n")
    };
    Ok(Reply { response, release: site.release() })
}

/// The volume let us down. The file may be back in a moment, and says nothing about the rest of the site.
fn failed(path: &str, error: &io::Error) -> Response<Payload> {
    tracing::error!(path, %error, "cannot read content");
    unavailable("the content cannot be read right now")
}
