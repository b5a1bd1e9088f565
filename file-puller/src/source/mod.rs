//! The content manager as this Pod sees it: HTTP requests for a manifest and for files, and what can come back.
//!
//! Promises: the manifest is asked for conditionally when its validator is known; no answer is read further than its limit;
//! no redirect leaves the origin that was configured; no error shows a query string. Leaves to `fetch` what a file's
//! bytes must be, and to `backoff` when to ask again.

mod body;
mod client;
mod credentials;
mod error;
mod signature;
mod tls;
pub(crate) mod url;

use http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_RANGE, ETAG, IF_NONE_MATCH, IF_RANGE, RANGE, RETRY_AFTER,
};
use http::{HeaderMap, HeaderValue, StatusCode};
use lifecycle::blocking;
use reqwest::redirect::Policy;
use reqwest::{Client, RequestBuilder, Response, Url};

pub(crate) use self::body::{Body, EntityTag, Pace};
use self::client::within_origin;
pub(crate) use self::client::{ClientError, Transfer, causes, client_for};
use self::credentials::Credential;
pub(crate) use self::credentials::{CredentialError, Credentials, Login};
pub(crate) use self::error::SourceError;
use self::error::{failed, retry_after};
pub(crate) use self::signature::{PublicKey, SignatureError, SigningKey};
pub(crate) use self::tls::{TlsFiles, TlsPems};
pub(crate) use self::url::{Compression, Kind, SIGNATURE_EXTENSION, SourceUrl};

/// How the content manager is reached.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct SourceOptions {
    #[command(flatten)]
    pub(crate) transfer: Transfer,

    #[command(flatten)]
    pub(crate) credentials: Credentials,

    #[command(flatten)]
    pub(crate) tls: TlsFiles,
}

/// A content manager.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    client: Client,
    url: SourceUrl,
    largest_manifest: u64,
    pace: Pace,
    login: Login,
    credential: Option<Credential>,
    transfer: Transfer,
    tls: TlsFiles,
    /// What the client was made with.
    pems: TlsPems,
}

/// The answer to a request for the rest of a file.
#[derive(Debug)]
pub(crate) enum Continuation {
    /// From the byte that was asked for.
    Rest(Body),
    /// From its beginning: it is another file by now, or the server has no ranges.
    Whole(Body),
}

/// What the content manager said of itself with the last manifest that was put in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Validator(HeaderValue);

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
    /// What to ask with next time, if it came with one.
    pub(crate) validator: Option<Validator>,
}

impl Source {
    /// Prepares to talk to the content manager; nothing is sent yet.
    pub(crate) fn new(
        url: SourceUrl,
        options: &SourceOptions,
        largest_manifest: u64,
    ) -> Result<Self, ClientError> {
        let transfer = options.transfer;
        let login = options.credentials.login();
        if url.url().scheme() == "http" && !matches!(login, Login::Anonymous) {
            tracing::warn!(source = %url, "credentials go over http:// in the clear; use https:// outside of a trusted network");
        }
        let tls = options.tls.clone();
        let pems = tls.read()?;
        Ok(Self {
            client: client(&url, &transfer, &pems)?,
            url,
            largest_manifest,
            pace: Pace { least: transfer.min_throughput, grace: transfer.read_timeout },
            login,
            credential: None,
            transfer,
            tls,
            pems,
        })
    }

    /// What TLS trusts, for others who speak it.
    pub(crate) fn trust(&self) -> TlsPems {
        self.pems.clone().anonymous()
    }

    /// Files to fetch at a time.
    pub(crate) fn concurrency(&self) -> usize {
        self.transfer.concurrency
    }

    /// What is followed.
    pub(crate) fn url(&self) -> &SourceUrl {
        &self.url
    }

    /// Reads the credentials' files again, as each sync does first: they are rotated under a running Pod.
    pub(crate) async fn renew_credential(&mut self) -> Result<(), ClientError> {
        let (login, tls) = (self.login.clone(), self.tls.clone());
        let read = move || Ok::<_, CredentialError>((login.read()?, tls.read()?));
        let (credential, pems) = blocking(read).await?;
        self.credential = credential;
        if pems != self.pems {
            self.client = client(&self.url, &self.transfer, &pems)?;
            self.pems = pems;
            tracing::info!("certificates have changed, so the next connections use the new ones");
        }
        Ok(())
    }

    /// Asks for what is followed, manifest or archive.
    pub(crate) async fn open(&self, freshness: Freshness) -> Result<Opened, SourceError> {
        let url = self.url.url();
        let response = send(self.get(url), url, freshness).await?;
        self.opened(response)
    }

    /// Asks for it if it is another than the one with this validator, and returns `None` if it is not.
    ///
    /// Only an `ETag` is used as a validator: `Last-Modified` counts whole seconds, so a second change within one second
    /// would be missed for good.
    pub(crate) async fn open_if_changed(&self, known: &Validator) -> Result<Option<Opened>, SourceError> {
        let url = self.url.url();
        let request = self.get(url).header(IF_NONE_MATCH, &known.0);
        let response = send(request, url, Freshness::Cached).await?;
        if response.status() == StatusCode::NOT_MODIFIED {
            return Ok(None);
        }
        self.opened(response).map(Some)
    }

    fn opened(&self, response: Response) -> Result<Opened, SourceError> {
        let url = self.url.url();
        ok(&response, url)?;
        let validator = response.headers().get(ETAG).cloned().map(Validator);
        Ok(Opened { body: self.body(response, url.clone()), validator })
    }

    /// Reads a manifest to its end.
    pub(crate) async fn read_manifest(&self, mut body: Body) -> Result<Vec<u8>, SourceError> {
        let announced = body.announced().unwrap_or(0).min(self.largest_manifest);
        let mut json = Vec::with_capacity(usize::try_from(announced).unwrap_or(0));
        while let Some(chunk) = body.chunk().await? {
            if (json.len() + chunk.len()) as u64 > self.largest_manifest {
                let limit = bytesize::ByteSize(self.largest_manifest);
                return Err(SourceError::ManifestTooLarge { url: url::display(body.url()), limit });
            }
            json.extend_from_slice(&chunk);
        }
        Ok(json)
    }

    /// Asks for the manifest's signature.
    pub(crate) async fn signature(&self, freshness: Freshness) -> Result<(Url, Vec<u8>), SourceError> {
        let url = self.url.signature();
        let mut body = self.file(url.clone(), freshness).await?;
        let mut signature = Vec::new();
        while let Some(chunk) = body.chunk().await? {
            signature.extend_from_slice(&chunk);
            if signature.len() as u64 > signature::MAX_LEN {
                break;
            }
        }
        Ok((url, signature))
    }

    /// Asks for a file; its body is the caller's to read, with [`Body::chunk`].
    pub(crate) async fn file(&self, url: Url, freshness: Freshness) -> Result<Body, SourceError> {
        let response = send(self.get(&url), &url, freshness).await?;
        ok(&response, &url)?;
        Ok(self.body(response, url))
    }

    /// Asks for a file from that byte on, provided that it is still the one with this tag.
    pub(crate) async fn rest_of_file(
        &self,
        url: &Url,
        tag: &EntityTag,
        from: u64,
    ) -> Result<Continuation, SourceError> {
        let request = self.get(url).header(RANGE, format!("bytes={from}-")).header(IF_RANGE, &tag.0);
        let response = send(request, url, Freshness::Cached).await?;
        if response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            // It has become shorter than that.
            return self.file(url.clone(), Freshness::Cached).await.map(Continuation::Whole);
        }
        if response.status() != StatusCode::PARTIAL_CONTENT {
            ok(&response, url)?;
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

    fn get(&self, url: &Url) -> RequestBuilder {
        let request = self.client.get(url.clone());
        match &self.credential {
            None => request,
            Some(credential) => credential.authorize(request),
        }
    }

    fn body(&self, response: Response, url: Url) -> Body {
        Body::new(response, url, self.pace)
    }
}

fn client(url: &SourceUrl, transfer: &Transfer, pems: &TlsPems) -> Result<Client, ClientError> {
    let mut headers = HeaderMap::new();
    // Sizes and digests are of the files themselves, not of a compressed form of them.
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    let client = client_for(url.url(), transfer, pems)?
        .default_headers(headers)
        .redirect(Policy::custom(within_origin))
        .pool_max_idle_per_host(transfer.concurrency);
    Ok(client.build()?)
}

async fn send(request: RequestBuilder, url: &Url, freshness: Freshness) -> Result<Response, SourceError> {
    let request = match freshness {
        Freshness::Cached => request,
        Freshness::Revalidated => request.header(CACHE_CONTROL, "no-cache"),
    };
    request.send().await.map_err(|error| failed(url, &error))
}

fn ok(response: &Response, url: &Url) -> Result<(), SourceError> {
    // A part of it, or nothing of it, is not it: 200 alone is the whole.
    if response.status() == StatusCode::OK {
        return Ok(());
    }
    Err(SourceError::Status {
        url: url::display(url),
        status: response.status(),
        retry_after: response.headers().get(RETRY_AFTER).and_then(retry_after),
    })
}
