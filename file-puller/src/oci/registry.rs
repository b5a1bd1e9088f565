//! A registry (the OCI distribution specification): which manifest a tag has, and the blobs that it names.
//!
//! SECURITY: every blob has to be what its digest says, so it does not matter which server gives the bytes: a blob's redirects are
//! followed to any host over TLS, and nothing about us is sent there. A manifest's are followed as those of any source. User and
//! password go to the registry's own host. For a token, they go to another host only over TLS and where `--redirect-to` names it,
//! because it is the registry that chooses that host; and only at the port of `https` or the registry's own. A bearer token, the
//! headers of `--header-file` and a client certificate never leave the registry's origin: scheme, host and port.

use std::time::{Duration, Instant};

use http::header::{ACCEPT, AUTHORIZATION, LOCATION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use lifecycle::escape::escaped;
use reqwest::{RequestBuilder, Response, Url};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::challenge::Challenge;
use super::manifest::{self, Document, Layer, MAX_MANIFEST, Platform};
use crate::content::Digest;
use crate::source::{Body, MAX_REDIRECTS, OciReference, OciVersion, Session, Source, SourceError, display};

/// A token is used for this long where its server does not say (the token specification's default), less what a request takes.
const TOKEN_LIFE: Duration = Duration::from_secs(55);
/// The largest answer of a token server.
const MAX_TOKEN: u64 = 256 * 1024;

/// Why a registry could not be asked, or what it has is not followed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RegistryError {
    #[error(transparent)]
    Source(#[from] SourceError),
    /// It wants to know who asks, or does not let in who asks.
    #[error("cannot fetch {url}: {}", escaped(why))]
    Login { url: String, why: String },
    #[error("image refused: {}", escaped(.0))]
    Refused(String),
}

/// A registry's repository.
#[derive(Debug)]
pub(crate) struct Registry {
    reference: OciReference,
    platform: Option<Platform>,
    token: Option<Token>,
    /// The registry has asked for user and password.
    wants_login: bool,
}

/// What becomes of an answer that redirects a request.
#[derive(Debug, Clone, Copy)]
enum Redirected {
    /// The request is sent on, to where the redirects of any source lead.
    Followed,
    /// The caller gets the answer, and follows it.
    Returned,
}

#[derive(Debug)]
struct Token {
    header: HeaderValue,
    expires: Instant,
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

impl Registry {
    pub(crate) fn new(reference: OciReference, platform: Option<Platform>) -> Self {
        Self { reference, platform, token: None, wants_login: false }
    }

    /// The digest of what is followed now, if the registry tells it without the manifest.
    pub(crate) async fn digest(&mut self, source: &Source) -> Result<Option<Digest>, RegistryError> {
        if let OciVersion::Digest(digest) = self.reference.version {
            return Ok(Some(digest));
        }
        let url = self.url(source, "manifests", &self.reference.version.to_string());
        let response = self.send(source, Method::HEAD, &url, manifest::ACCEPT, Redirected::Followed).await?;
        match response.status() {
            StatusCode::OK => Ok(announced(&response)),
            // Some registries have no HEAD; the manifest itself tells.
            StatusCode::METHOD_NOT_ALLOWED => Ok(None),
            _ => Err(SourceError::of_status(response, &url).await.into()),
        }
    }

    /// The digest of what is followed, and its layers, lowest first.
    pub(crate) async fn layers(&mut self, source: &Source) -> Result<(Digest, Vec<Layer>), RegistryError> {
        let version = self.reference.version.clone();
        let (digest, mut document) = self.manifest(source, &version).await?;
        if let Document::Index(entry) = document {
            (_, document) = self.manifest(source, &OciVersion::Digest(entry)).await?;
        }
        match document {
            Document::Image(layers) => Ok((digest, layers)),
            Document::Index(_) => Err(RegistryError::Refused("its index names another index".to_owned())),
        }
    }

    async fn manifest(
        &mut self,
        source: &Source,
        version: &OciVersion,
    ) -> Result<(Digest, Document), RegistryError> {
        let url = self.url(source, "manifests", &version.to_string());
        let response = self.send(source, Method::GET, &url, manifest::ACCEPT, Redirected::Followed).await?;
        if response.status() != StatusCode::OK {
            return Err(SourceError::of_status(response, &url).await.into());
        }
        let json = read(source.body(response, url), MAX_MANIFEST, "manifest").await?;
        let digest = Digest::of(Sha256::new_with_prefix(&json));
        match version {
            OciVersion::Digest(promised) if *promised != digest => Err(RegistryError::Refused(format!(
                "the registry answers with the manifest sha256:{digest} instead of sha256:{promised}"
            ))),
            _ => {
                let document = manifest::parse(&json, self.platform.as_ref());
                Ok((digest, document.map_err(RegistryError::Refused)?))
            }
        }
    }

    /// A layer's bytes, whose digest is the caller's to check.
    pub(crate) async fn blob(&mut self, source: &Source, layer: &Layer) -> Result<Body, RegistryError> {
        let mut url = self.url(source, "blobs", &format!("sha256:{}", layer.digest));
        let mut response = self.send(source, Method::GET, &url, "*/*", Redirected::Returned).await?;
        let mut is_beyond = false;
        for _ in 0..MAX_REDIRECTS {
            let Some(to) = redirect(&response, &url) else { break };
            let to = to?;
            if to.scheme() != "https" && to.origin() != url.origin() {
                let cause = format!("it redirects to {}, which is not https", display(&to));
                return Err(SourceError::Redirect { url: display(&url), cause }.into());
            }
            // Not even where another host sends us back is anything about us sent.
            is_beyond |= to.origin() != url.origin();
            url = to;
            let begin = if is_beyond { Session::to_elsewhere } else { Session::to_origin_unnamed };
            response = source.exchange(begin(&source.session(), Method::GET, &url), &url).await?;
        }
        if response.status() != StatusCode::OK {
            return Err(SourceError::of_status(response, &url).await.into());
        }
        Ok(source.body(response, url))
    }

    fn url(&self, source: &Source, what: &str, which: &str) -> Url {
        let mut url = source.url().url().clone();
        url.set_path(&format!("/v2/{}/{what}/{which}", self.reference.name));
        url
    }

    /// Sends a request, and once more where the registry first wants to know who asks.
    async fn send(
        &mut self,
        source: &Source,
        method: Method,
        url: &Url,
        accept: &'static str,
        redirected: Redirected,
    ) -> Result<Response, RegistryError> {
        let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(accept))]);
        let (response, is_origin) = self.ask(source, &method, url, &headers, redirected).await?;
        // SECURITY: how to log in, another host does not say.
        if response.status() != StatusCode::UNAUTHORIZED || !is_origin {
            return Ok(response);
        }
        self.log_in(source, &response, url).await?;
        let (response, is_origin) = self.ask(source, &method, url, &headers, redirected).await?;
        match response.status() {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if is_origin => {
                let why = "it does not let in who asks; see --basic-auth-file";
                Err(RegistryError::Login { url: display(url), why: why.to_owned() })
            }
            _ => Ok(response),
        }
    }

    /// Sends a request once. Returns also whether it is the registry that answers.
    async fn ask(
        &self,
        source: &Source,
        method: &Method,
        url: &Url,
        headers: &HeaderMap,
        redirected: Redirected,
    ) -> Result<(Response, bool), SourceError> {
        let to_origin = |at: &Url| self.authorized(source, method.clone(), at);
        match redirected {
            Redirected::Followed => source.follow(method, url, headers, Duration::ZERO, to_origin).await,
            Redirected::Returned => {
                Ok((source.exchange(to_origin(url).headers(headers.clone()), url).await?, true))
            }
        }
    }

    fn authorized(&self, source: &Source, method: Method, url: &Url) -> RequestBuilder {
        let session = source.session();
        match &self.token {
            Some(token) if token.expires > Instant::now() => {
                session.to_origin_unnamed(method, url).header(AUTHORIZATION, token.header.clone())
            }
            // A token of one's own is sent as it is; a password only once it has been asked for.
            _ if self.wants_login || session.has_token() => session.to_origin(method, url),
            _ => session.to_origin_unnamed(method, url),
        }
    }

    async fn log_in(&mut self, source: &Source, refusal: &Response, url: &Url) -> Result<(), RegistryError> {
        let failed = |why: String| RegistryError::Login { url: display(url), why };
        let mut offered = refusal.headers().get_all(WWW_AUTHENTICATE).iter();
        match offered.find_map(|header| Challenge::parse(header.to_str().ok()?)) {
            Some(Challenge::Basic) if source.session().has_credential() => {
                self.wants_login = true;
                Ok(())
            }
            Some(Challenge::Basic) => Err(failed("it asks for a user; see --basic-auth-file".to_owned())),
            Some(Challenge::Bearer { realm, service, scope }) => {
                let mut realm =
                    url.join(&realm).map_err(|error| failed(format!("its token server: {error}")))?;
                realm.query_pairs_mut().extend_pairs(service.iter().map(|service| ("service", service)));
                realm.query_pairs_mut().extend_pairs(scope.iter().map(|scope| ("scope", scope)));
                self.token = Some(self.fetch_token(source, url, &realm).await?);
                Ok(())
            }
            None => Err(failed("it answers 401 Unauthorized and does not say how to log in".to_owned())),
        }
    }

    async fn fetch_token(&self, source: &Source, url: &Url, realm: &Url) -> Result<Token, RegistryError> {
        let failed = |why: String| RegistryError::Login { url: display(url), why };
        let session = source.session();
        let is_same_host = realm.host() == url.host();
        if realm.scheme() != "https" && (!is_same_host || url.scheme() == "https") {
            return Err(failed(format!("its tokens would come from {} without TLS", display(realm))));
        }
        if !is_same_host && session.has_password() {
            let host = realm.host_str().unwrap_or_default();
            if !source.is_named(realm) {
                return Err(failed(format!(
                    "its tokens come from another host, {host}, which is shown user and password with --redirect-to {host}"
                )));
            }
            // SECURITY: the flag names a host, and not everything that listens there.
            if let Some(port) = realm.port().filter(|port| Some(*port) != url.port()) {
                return Err(failed(format!(
                    "its tokens come from {host} at port {port}, and another host is shown user and password only at port 443 or the registry's own"
                )));
            }
        }
        let ask = if realm.origin() != url.origin() {
            Session::to_named
        } else if session.has_credential() {
            Session::to_origin
        } else {
            Session::to_origin_unnamed
        };
        let request = ask(&session, Method::GET, realm);
        let response = source.exchange(request, realm).await?;
        if response.status() != StatusCode::OK {
            return Err(SourceError::of_status(response, realm).await.into());
        }
        let json = read(source.body(response, realm.clone()), MAX_TOKEN, "token").await?;
        Token::read(&json).ok_or_else(|| failed(format!("{} gives out no token", display(realm))))
    }
}

impl Token {
    /// Reads the answer of a token server.
    fn read(json: &[u8]) -> Option<Self> {
        let answer: TokenAnswer = serde_json::from_slice(json).ok()?;
        let life = answer.expires_in.map_or(TOKEN_LIFE, |seconds| Duration::from_secs(seconds).mul_f64(0.9));
        let mut header =
            HeaderValue::try_from(format!("Bearer {}", answer.token.or(answer.access_token)?)).ok()?;
        header.set_sensitive(true);
        let now = Instant::now();
        // A lifetime too long for the clock is treated as if the registry had named none.
        Some(Self { header, expires: now.checked_add(life).unwrap_or(now + TOKEN_LIFE) })
    }
}

fn announced(response: &Response) -> Option<Digest> {
    let header = response.headers().get("docker-content-digest")?.to_str().ok()?;
    header.strip_prefix("sha256:").and_then(Digest::parse)
}

fn redirect(response: &Response, from: &Url) -> Option<Result<Url, SourceError>> {
    if !response.status().is_redirection() {
        return None;
    }
    let to = response.headers().get(LOCATION)?.to_str().ok()?;
    let failed =
        |error| SourceError::Redirect { url: display(from), cause: format!("its redirect: {error}") };
    Some(from.join(to).map_err(failed))
}

async fn read(mut body: Body, limit: u64, what: &str) -> Result<Vec<u8>, RegistryError> {
    let bytes = body.read(limit).await?;
    bytes.ok_or_else(|| {
        RegistryError::Refused(format!("the {what} of {} has more than {limit} bytes", display(body.url())))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_never_expires_is_one_like_any_other() {
        for life in ["300", "0", "18446744073709551615"] {
            let token = Token::read(format!(r#"{{"token": "t", "expires_in": {life}}}"#).as_bytes()).unwrap();
            assert_eq!(token.header, "Bearer t");
        }
        assert!(Token::read(b"{}").is_none());
    }
}
