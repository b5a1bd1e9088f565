//! The content manager as this Pod sees it: HTTP requests for a manifest and for files, and what can come back.
//!
//! Promises: the manifest is asked for conditionally where its validator allows it; no answer is read further than its limit;
//! no redirect leads to a host that no flag names; no error shows a query string. Leaves to `fetch` what a file's
//! bytes must be, and to `backoff` when to ask again.

mod body;
mod client;
mod credentials;
mod error;
mod header_file;
mod hook_url;
mod kind;
mod long_poll;
mod oci_reference;
mod redirect;
mod session;
mod signature;
mod tls;
pub(crate) mod url;
mod validator;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use http::header::{
    CACHE_CONTROL, CONTENT_RANGE, HeaderMap, HeaderName, HeaderValue, IF_NONE_MATCH, IF_RANGE, RANGE,
};
use http::{Method, StatusCode};
use lifecycle::blocking;
use parking_lot::Mutex;
use reqwest::{RequestBuilder, Response, Url};
use tokio::time::{sleep, timeout};

pub(crate) use self::body::{Body, EntityTag, Pace};
pub(crate) use self::client::{ClientError, Tls, Transfer, causes, client_for};
pub(crate) use self::credentials::{CredentialError, Credentials};
use self::error::failed;
pub(crate) use self::error::{Answer, SourceError};
pub(crate) use self::hook_url::HookUrl;
pub(crate) use self::kind::{Compression, Content, Expected, Kind};
pub(crate) use self::long_poll::Change;
use self::long_poll::{SYNC_MANIFEST, Waiting, is_applied, is_cut, prefer, step_aside};
pub(crate) use self::oci_reference::{OciReference, OciVersion};
pub(crate) use self::redirect::MAX_REDIRECTS;
use self::redirect::{RedirectHost, Redirects};
pub(crate) use self::session::Session;
pub(crate) use self::signature::{PublicKey, SignatureError, SigningKey};
pub(crate) use self::tls::{TlsFiles, TlsPems};
pub(crate) use self::url::{Base, SIGNATURE_EXTENSION, SourceUrl, display};
pub(crate) use self::validator::Validator;

/// How content is fetched, and who is asked for it.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct SourceOptions {
    /// Kind of the source, where its ending and its first bytes are misleading
    #[arg(long, value_name = "KIND", value_enum)]
    pub(crate) kind: Option<Kind>,

    /// Host that the source may redirect to besides its own, or that may be asked for a registry's tokens with user and password; .domain for all hosts beneath it; repeatable
    #[arg(long = "redirect-to", value_name = "HOST")]
    redirect_to: Vec<RedirectHost>,

    #[command(flatten)]
    pub(crate) transfer: Transfer,

    #[command(flatten)]
    pub(crate) waiting: Waiting,

    #[command(flatten)]
    pub(crate) credentials: Credentials,

    #[command(flatten)]
    pub(crate) tls: TlsFiles,
}

/// A content manager.
#[derive(Debug)]
pub(crate) struct Source {
    url: SourceUrl,
    /// What the command line says of its kind.
    said: Option<Expected>,
    /// The kind that was seen first.
    seen: Mutex<Option<Kind>>,
    /// Where the manifest was found the last time.
    base: Mutex<Base>,
    /// The entity tag of the manifest that was found there.
    tag: Mutex<Option<HeaderValue>>,
    /// Whether the last answer said that the content manager can wait.
    can_wait: AtomicBool,
    session: Mutex<Arc<Session>>,
    options: SourceOptions,
    largest_manifest: u64,
    pace: Pace,
    /// For how long a source without a tag is asked with a date alone.
    date_for: Option<Duration>,
    /// Whether it was said that the source cannot say "not modified".
    warned: AtomicBool,
}

/// The answer to a request for the rest of a file.
#[derive(Debug)]
pub(crate) enum Continuation {
    /// From the byte that was asked for.
    Rest(Body),
    /// From its beginning: it is another file by now, or the server has no ranges.
    Whole(Body),
}

/// Whether a cache on the way may answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// As usual.
    Cached,
    /// Caches have to ask the content manager: after what they gave did not fit together.
    Revalidated,
}

/// A manifest or an archive that is about to arrive.
#[derive(Debug)]
pub(crate) struct Opened {
    /// Its bytes, unchecked.
    pub(crate) body: Body,
    /// What its first bytes are.
    pub(crate) content: Content,
    /// The answer in words, where the first bytes are not what a manifest begins with, or a compression that the server has put around
    /// its answer, whatever that is.
    pub(crate) unlike: Option<Box<Answer>>,
    /// What to ask with next time.
    pub(crate) validator: Validator,
}

impl Freshness {
    fn header(self) -> Option<(HeaderName, HeaderValue)> {
        (self == Self::Revalidated).then(|| (CACHE_CONTROL, HeaderValue::from_static("no-cache")))
    }
}

impl Source {
    /// Prepares to talk to the content manager; nothing is sent yet.
    pub(crate) fn new(
        url: SourceUrl,
        options: &SourceOptions,
        said: Option<Expected>,
        largest_manifest: u64,
        date_for: Option<Duration>,
    ) -> Result<Self, ClientError> {
        let transfer = &options.transfer;
        if url.url().scheme() == "http" && options.credentials.are_sent() {
            tracing::warn!(source = %url, "credentials go over http:// in the clear; use https:// outside of a trusted network");
        }
        let session = Session::new(tls(&url, options), transfer, options.tls.read()?)?;
        Ok(Self {
            base: Mutex::new(Base::new(url.url().clone())),
            tag: Mutex::default(),
            can_wait: AtomicBool::new(false),
            url,
            said,
            seen: Mutex::new(None),
            session: Mutex::new(Arc::new(session)),
            largest_manifest,
            pace: Pace { least: transfer.min_throughput, grace: transfer.read_timeout },
            options: options.clone(),
            date_for,
            warned: AtomicBool::new(false),
        })
    }

    /// What TLS trusts, for others who speak it.
    pub(crate) fn tls_pems(&self) -> TlsPems {
        self.session().tls_pems()
    }

    pub(crate) fn concurrency(&self) -> usize {
        self.options.transfer.concurrency
    }

    /// What is followed.
    pub(crate) fn url(&self) -> &SourceUrl {
        &self.url
    }

    /// Where the manifest was found, and with it its files.
    pub(crate) fn base(&self) -> Base {
        self.base.lock().clone()
    }

    /// What it is, as far as a flag said or its bytes showed.
    pub(crate) fn kind(&self) -> Option<Kind> {
        self.said.map(Expected::kind).or(*self.seen.lock())
    }

    /// Remembers what an earlier process has seen there, or what has shown itself by its content.
    pub(crate) fn was(&self, kind: Kind) {
        *self.seen.lock() = Some(kind);
    }

    /// Reads the credentials' files again, as each sync does first: they are rotated under a running Pod.
    pub(crate) async fn renew_credential(&self) -> Result<(), ClientError> {
        self.renew(Duration::ZERO).await
    }

    /// The same before a question that the content manager may hold.
    pub(crate) async fn renew_to_wait(&self) -> Result<(), ClientError> {
        self.renew(self.options.waiting.wait).await
    }

    async fn renew(&self, held: Duration) -> Result<(), ClientError> {
        let options = self.options.clone();
        let read = move || {
            let headers = header_file::read(&options.credentials.header_files)?;
            Ok::<_, CredentialError>((options.credentials.read()?, headers, options.tls.read()?))
        };
        let (credential, headers, pems) = blocking(read).await?;
        let (tls, transfer) = (tls(&self.url, &self.options), &self.options.transfer);
        let session = self.session().renewed(tls, transfer, held, pems, credential, headers)?;
        *self.session.lock() = Arc::new(session);
        Ok(())
    }

    /// Asks for what is followed, manifest or archive.
    pub(crate) async fn open(&self, freshness: Freshness) -> Result<Opened, SourceError> {
        let headers = self.preference().into_iter().chain(freshness.header()).collect();
        let response = self.get(self.url.url(), headers).await?;
        self.opened(response, None).await
    }

    /// Asks for it if it is another than the one with this validator, and returns `None` if it is not.
    pub(crate) async fn open_if_changed(&self, known: &Validator) -> Result<Option<Opened>, SourceError> {
        let condition = known.condition(self.date_for, SystemTime::now());
        let is_conditional = condition.is_some();
        let headers = condition.into_iter().chain(self.preference()).collect();
        let response = self.get(self.url.url(), headers).await?;
        if is_conditional && response.status() == StatusCode::NOT_MODIFIED {
            // It may have moved all the same.
            self.found(response.url().clone(), response.headers(), known);
            return Ok(None);
        }
        self.opened(response, Some(known)).await.map(Some)
    }

    /// How long a date is trusted that it was asked with.
    pub(crate) fn date_for(&self) -> Option<Duration> {
        self.date_for
    }

    /// Whether the content manager can hold a question until there is another manifest, as far as its last answer says.
    pub(crate) fn can_wait(&self) -> bool {
        self.can_wait.load(Ordering::Relaxed)
    }

    /// Asks for the manifest once it is another than the one with this validator. It may be dropped at any time.
    pub(crate) async fn await_change(&self, known: &Validator) -> Result<Change<Opened>, SourceError> {
        let Waiting { wait, spread } = self.options.waiting;
        let condition = known.condition(self.date_for, SystemTime::now());
        let Some(condition) = condition.filter(|(name, _)| name == IF_NONE_MATCH) else {
            return Ok(Change::Unable);
        };
        let url = self.url.url();
        let headers = HeaderMap::from_iter([condition, prefer(wait)]);
        let (response, _) = match self.get_from(url, &headers, wait).await {
            Err(error) if is_cut(&error) => return Ok(Change::Cut(error)),
            sent => sent?,
        };
        if response.status() == StatusCode::NOT_MODIFIED {
            self.found(response.url().clone(), response.headers(), known);
            return Ok(Change::None);
        }
        let response = match ok(response, url).await {
            Err(error) if is_cut(&error) => return Ok(Change::Cut(error)),
            answered => answered?,
        };
        let pause = step_aside(response.headers(), spread);
        let mut opened = self.opened(response, Some(known)).await?;
        if !pause.is_zero() {
            // The content manager should not have to keep it in memory for us meanwhile.
            let all = usize::try_from(self.largest_manifest).unwrap_or(usize::MAX).saturating_add(1);
            opened.body.peek(all).await?;
            sleep(pause).await;
        }
        Ok(Change::Arrived(opened))
    }

    /// The header that asks whether the content manager can wait, where that makes a difference.
    fn preference(&self) -> Option<(HeaderName, HeaderValue)> {
        let may_wait = self.options.waiting.is_on() && self.kind() != Some(Kind::Archive);
        may_wait.then(|| prefer(Duration::ZERO))
    }

    fn found(&self, at: Url, headers: &HeaderMap, validator: &Validator) {
        *self.base.lock() = Base::new(at);
        let is_manifest = self.kind() == Some(Kind::Manifest);
        *self.tag.lock() = validator.tag().filter(|_| is_manifest);
        let can_wait = is_manifest && self.options.waiting.is_on() && is_applied(headers);
        self.can_wait.store(can_wait, Ordering::Relaxed);
    }

    async fn opened(&self, response: Response, before: Option<&Validator>) -> Result<Opened, SourceError> {
        let url = self.url.url();
        let response = ok(response, url).await?;
        let found_at = response.url().clone();
        let validator = Validator::of(response.headers(), before, SystemTime::now());
        if validator.is_empty() && !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(source = %self.url, "the source sends neither ETag nor Last-Modified, so each check fetches all of it; consider a longer --period");
        }
        let mut body = self.body(response, url.clone());
        let first = body.peek(kind::PREFIX).await?.to_vec();
        let (status, headers) = body.head();
        let answer = Box::new(Answer::of(status, headers, &first));
        let (content, unlike) = self.judge(&first, answer)?;
        self.found(found_at, body.head().1, &validator);
        Ok(Opened { body, content, unlike, validator })
    }

    /// What an answer is by its first bytes, where that may be followed.
    fn judge(
        &self,
        first: &[u8],
        answer: Box<Answer>,
    ) -> Result<(Content, Option<Box<Answer>>), SourceError> {
        let url = || url::display(self.url.url());
        let mut seen = self.seen.lock();
        let expected = self.said.or(seen.map(Expected::Seen));
        let is_manifest = expected.map(Expected::kind) == Some(Kind::Manifest);
        let content = Content::of(first);
        if let Some(compressed @ Content::Archive(Compression::Gzip | Compression::Zstd)) = content
            && answer.is_encoded()
        {
            // Some servers say so of an archive that they only keep. What it is shows once it is unpacked.
            let content = if is_manifest { Content::Manifest } else { compressed };
            return Ok((content, Some(answer)));
        }
        let Some(content) = content else {
            if is_manifest {
                // Its parser has more to say than that it does not begin as it should.
                return Ok((Content::Manifest, Some(answer)));
            }
            let what = expected.map_or("content", |expected| expected.kind().name());
            return Err(SourceError::NotContent { what, url: url(), answer });
        };
        if let Some(expected) = expected {
            expected.admit(content.kind()).map_err(|wrong| SourceError::Kind { url: url(), wrong })?;
        }
        *seen = Some(content.kind());
        Ok((content, None))
    }

    pub(crate) async fn read_manifest(&self, mut body: Body) -> Result<Vec<u8>, SourceError> {
        let limit = self.largest_manifest;
        let json = body.read(limit).await?;
        json.ok_or_else(|| {
            let (url, limit) = (url::display(body.url()), bytesize::ByteSize(limit));
            SourceError::ManifestTooLarge { url, limit }
        })
    }

    pub(crate) async fn signature(&self, freshness: Freshness) -> Result<(Url, Vec<u8>), SourceError> {
        let url = self.base().signature();
        let signature = self.file(url.clone(), freshness).await?.read(signature::MAX_LEN).await?;
        // What is too large to be one is wrong like any other.
        Ok((url, signature.unwrap_or_default()))
    }

    /// Asks for a file; its body is the caller's to read, with [`Body::chunk`].
    pub(crate) async fn file(&self, url: Url, freshness: Freshness) -> Result<Body, SourceError> {
        let headers = self.manifest_tag().into_iter().chain(freshness.header()).collect();
        let response = self.get(&url, headers).await?;
        let response = ok(response, &url).await?;
        Ok(self.body(response, url))
    }

    /// Asks for a file from that byte on, provided that it is still the one with this tag.
    pub(crate) async fn rest_of_file(
        &self,
        url: &Url,
        tag: &EntityTag,
        from: u64,
    ) -> Result<Continuation, SourceError> {
        let range = HeaderValue::try_from(format!("bytes={from}-")).ok();
        let headers = range.map(|range| (RANGE, range)).into_iter().chain([(IF_RANGE, tag.0.clone())]);
        let headers = headers.chain(self.manifest_tag()).collect();
        let response = self.get(url, headers).await?;
        if response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            // It has become shorter than that.
            return self.file(url.clone(), Freshness::Cached).await.map(Continuation::Whole);
        }
        if response.status() != StatusCode::PARTIAL_CONTENT {
            let response = ok(response, url).await?;
            return Ok(Continuation::Whole(self.body(response, url.clone())));
        }
        let range =
            response.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok()).unwrap_or_default();
        if !range.starts_with(&format!("bytes {from}-")) {
            let cause = format!("asked for the bytes from {from} on, it answers with the range {range:?}");
            return Err(SourceError::Unreachable { url: url::display(url), cause });
        }
        Ok(Continuation::Rest(self.body(response, url.clone())))
    }

    /// The header that says which manifest a file is fetched for.
    fn manifest_tag(&self) -> Option<(HeaderName, HeaderValue)> {
        self.tag.lock().clone().map(|tag| (SYNC_MANIFEST, tag))
    }

    async fn get(&self, url: &Url, headers: HeaderMap) -> Result<Response, SourceError> {
        self.get_from(url, &headers, Duration::ZERO).await.map(|(response, _)| response)
    }

    /// Sends a request whose answer may be held back for so long, and follows it where it is redirected. Returns also whether the
    /// origin answers, and no host beyond it chose that: only then what follows from the answer may be asked in our name.
    pub(crate) async fn get_from(
        &self,
        url: &Url,
        headers: &HeaderMap,
        held: Duration,
    ) -> Result<(Response, bool), SourceError> {
        let session = self.session();
        self.follow(&Method::GET, url, headers, held, |at| session.to_origin(Method::GET, at)).await
    }

    /// The same for any method that changes nothing on the server. `to_origin` begins a request to the origin, and says what is
    /// shown there of us.
    pub(crate) async fn follow(
        &self,
        method: &Method,
        url: &Url,
        headers: &HeaderMap,
        held: Duration,
        to_origin: impl Fn(&Url) -> RequestBuilder,
    ) -> Result<(Response, bool), SourceError> {
        let session = self.session();
        let mut redirects = Redirects::new(self.url.url(), &self.options.redirect_to);
        let mut at = url.clone();
        loop {
            let at_origin = redirects.at_origin(&at);
            let request = || {
                let request =
                    if at_origin { to_origin(&at) } else { session.to_elsewhere(method.clone(), &at) };
                request.headers(headers.clone())
            };
            // A proxy that cuts a held request is no idle connection: asking again at once would only be cut again.
            let again = || held.is_zero().then(request);
            let response = self.exchange_held(request(), again, url, held).await?;
            match redirects.next(&at, response.status(), response.headers()) {
                Ok(None) => return Ok((response, at_origin)),
                Ok(Some(next)) => at = next,
                Err(error) => {
                    return Err(SourceError::Redirect { url: url::display(url), cause: error.to_string() });
                }
            }
        }
    }

    /// Whether `--redirect-to` names the host of a URL.
    pub(crate) fn is_named(&self, url: &Url) -> bool {
        self.options.redirect_to.iter().any(|host| host.covers(url))
    }

    /// What requests are made with now.
    pub(crate) fn session(&self) -> Arc<Session> {
        Arc::clone(&self.session.lock())
    }

    /// Sends a request that changes nothing on the server, and returns whatever is answered, redirects included.
    pub(crate) async fn exchange(&self, request: RequestBuilder, url: &Url) -> Result<Response, SourceError> {
        let again = request.try_clone();
        self.exchange_held(request, || again, url, Duration::ZERO).await
    }

    /// The same for a request whose answer may be held back for so long, and for which there is another, if it may be sent twice.
    async fn exchange_held(
        &self,
        request: RequestBuilder,
        again: impl FnOnce() -> Option<RequestBuilder>,
        url: &Url,
        held: Duration,
    ) -> Result<Response, SourceError> {
        let sent = timeout(self.pace.grace.saturating_add(held), async {
            match request.send().await {
                // The server had closed a connection that was idle, and we did not know yet: a request that changes nothing
                // may be sent again (RFC 9112, section 9.3.1).
                Err(error) if error.is_request() && !error.is_connect() => match again() {
                    Some(again) => again.send().await,
                    None => Err(error),
                },
                sent => sent,
            }
        });
        let Ok(sent) = sent.await else {
            return Err(SourceError::timed_out(url));
        };
        sent.map_err(|error| failed(url, &error))
    }

    pub(crate) fn body(&self, response: Response, url: Url) -> Body {
        Body::new(response, url, self.pace)
    }
}

/// Whether TLS is spoken with the source, or with a host that it may redirect to.
fn tls(url: &SourceUrl, options: &SourceOptions) -> Tls {
    // A registry may redirect to any host.
    if options.redirect_to.is_empty() && url.image().is_none() { Tls::of(url.url()) } else { Tls::Spoken }
}

async fn ok(response: Response, url: &Url) -> Result<Response, SourceError> {
    // A part of it, or nothing of it, is not it: 200 alone is the whole.
    if response.status() == StatusCode::OK {
        return Ok(response);
    }
    Err(SourceError::of_status(response, url).await)
}
