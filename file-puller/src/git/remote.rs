//! A repository on a server, over Git's smart HTTP protocol (`gitprotocol-http(5)`).
//!
//! Version 2 is asked for, where one command is one request and a server is asked about one ref; version 0 still works, with all refs in
//! its first answer. What the server can do is kept from the first contact, so that "no change" costs one request.

use std::io;
use std::time::Duration;

use http::header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use lifecycle::cgroup::memory_limit;
use lifecycle::escape::escaped;
use reqwest::{Response, Url};

use super::object_id::{ObjectFormat, ObjectId};
use super::pkt_line::{self, DELIMITER, FLUSH, PktLine, ServerRefusal, SideBand, malformed};
use super::refs::{self, GitRef, RefError, Server, Tip, Version};
use crate::source::{Body, Session, Source, SourceError, display};

const GIT_PROTOCOL: HeaderName = HeaderName::from_static("git-protocol");
const VERSION_2: HeaderValue = HeaderValue::from_static("version=2");

/// The largest list of refs that is read: a million of them, or what there is memory for.
fn max_refs(memory_limit: Option<u64>) -> u64 {
    const MAX: u64 = 128 * 1024 * 1024;
    // What is read takes about twice as much again.
    memory_limit.map_or(MAX, |limit| MAX.min(limit / 5))
}

/// Why a repository could not be asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RemoteError {
    #[error(transparent)]
    Source(#[from] SourceError),
    /// It answered, and not as a git server does, or has no such ref.
    #[error("cannot fetch {url}: {}", escaped(why))]
    Answer { url: String, why: String },
}

/// A repository.
#[derive(Debug)]
pub(crate) struct Remote {
    follow: GitRef,
    contact: Option<Contact>,
}

/// What the first contact told.
#[derive(Debug, Clone)]
struct Contact {
    server: Server,
    /// The repository's URL, after all redirects.
    base: Url,
    /// Whether it is at the origin of `--source`, where requests are made in our name.
    is_at_origin: bool,
}

impl Remote {
    pub(crate) fn new(follow: GitRef) -> Self {
        Self { follow, contact: None }
    }

    /// What the followed ref names now. A commit that is followed needs no question.
    pub(crate) async fn tip(&mut self, source: &Source) -> Result<Tip, RemoteError> {
        if let GitRef::Commit(commit) = self.follow {
            return Ok(Tip::of_commit(commit));
        }
        let tip = self.ask(source).await;
        self.believed(tip)
    }

    /// Forgets what the server is where it fails: it may have become another one, or be elsewhere.
    fn believed<T>(&mut self, answer: Result<T, RemoteError>) -> Result<T, RemoteError> {
        if answer.is_err() {
            self.contact = None;
        }
        answer
    }

    async fn ask(&mut self, source: &Source) -> Result<Tip, RemoteError> {
        let (contact, advertised) = match &self.contact {
            Some(contact) if contact.server.version == Version::V2 => (contact.clone(), Vec::new()),
            _ => self.greet(source).await?,
        };
        let listed = match contact.server.version {
            Version::V0 => advertised,
            Version::V2 => {
                let url = command_url(&contact.base);
                let request = self.follow.list_request(contact.server);
                let answer = read(post(source, &contact, &url, request).await?).await?;
                refs::read_refs(&mut answer.as_slice()).map_err(|error| unlike_git(&url, &error))?
            }
        };
        let found = self.follow.find(contact.server, &listed);
        found.map_err(|cause| no_such_ref(&contact, &cause))
    }

    /// Asks what the server is.
    async fn greet(&mut self, source: &Source) -> Result<(Contact, Vec<refs::RefLine>), RemoteError> {
        let url = greeting_url(source.url().url());
        let protocol = [(GIT_PROTOCOL, VERSION_2)].into_iter().collect();
        let (response, is_at_origin) = source.get_from(&url, &protocol, Duration::ZERO).await?;
        let response = check(response, &url, "advertisement").await?;
        // What answers is asked from then on, as git does.
        let base = base_of(response.url()).unwrap_or_else(|| source.url().url().clone());
        let answer = read(source.body(response, url.clone())).await?;
        let (server, listed) =
            refs::read_advertisement(&mut answer.as_slice()).map_err(|error| unlike_git(&url, &error))?;
        let contact = Contact { server, base, is_at_origin };
        self.contact = Some(contact.clone());
        Ok((contact, listed))
    }

    /// Asks for a commit without its history, and without what the commit `have` has already; `read_pack` reads the answer.
    pub(crate) async fn fetch(
        &mut self,
        source: &Source,
        tip: &Tip,
        have: Option<ObjectId>,
    ) -> Result<(Body, Answer), RemoteError> {
        let contact = match &self.contact {
            Some(contact) => contact.clone(),
            None => self.greet(source).await?.0,
        };
        if tip.wanted.format() != contact.server.format {
            return Err(no_such_ref(&contact, &RefError::OtherFormat(contact.server.format.name())));
        }
        let server = contact.server;
        let url = command_url(&contact.base);
        let request = fetch_request(server, tip, have.filter(|_| server.version == Version::V2));
        let body = post(source, &contact, &url, request).await;
        let body = self.believed(body)?;
        Ok((body, Answer { version: server.version, url }))
    }
}

/// How the answer to a fetch is to be read.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    version: Version,
    url: Url,
}

impl Answer {
    /// Skips to the pack in an answer.
    pub(super) fn pack<R: io::Read>(&self, mut input: R) -> io::Result<SideBand<R>> {
        loop {
            let line = PktLine::read(&mut input)?.ok_or(io::ErrorKind::UnexpectedEof)?;
            let Some(text) = line.text()? else { continue };
            match self.version {
                Version::V2 if text == "packfile" => return Ok(SideBand::new(input)),
                Version::V0 if text == "NAK" => return Ok(SideBand::new(input)),
                _ if ["shallow", "unshallow", "acknowledgments", "NAK", "ACK", "wanted-refs"]
                    .iter()
                    .any(|known| text.starts_with(known)) => {}
                _ => return Err(malformed("it does not answer with a pack")),
            }
        }
    }

    /// An error of the input, as one of the server.
    pub(crate) fn failed(&self, error: &io::Error) -> RemoteError {
        unlike_git(&self.url, error)
    }
}

fn fetch_request(server: Server, tip: &Tip, have: Option<ObjectId>) -> String {
    let mut request = String::new();
    let wanted = tip.wanted;
    if server.version == Version::V2 {
        pkt_line::write(&mut request, "command=fetch");
        refs::capabilities(&mut request, server);
        request.push_str(DELIMITER);
        for word in ["ofs-delta", "no-progress"] {
            pkt_line::write(&mut request, word);
        }
        if have.is_some() {
            // Only with this does a server leave out what an unrelated commit has; deltas may then be against that.
            pkt_line::write(&mut request, "thin-pack");
        }
        pkt_line::write(&mut request, &format!("want {wanted}"));
    } else {
        let format = match server.format {
            ObjectFormat::Sha1 => String::new(),
            format @ ObjectFormat::Sha256 => format!(" object-format={}", format.name()),
        };
        let agent = refs::AGENT;
        let capabilities = format!("shallow side-band-64k ofs-delta no-progress{format} {agent}");
        pkt_line::write(&mut request, &format!("want {wanted} {capabilities}"));
    }
    if let Some(have) = have {
        pkt_line::write(&mut request, &format!("shallow {have}"));
    }
    pkt_line::write(&mut request, "deepen 1");
    if server.version == Version::V0 {
        request.push_str(FLUSH);
    }
    if let Some(have) = have {
        pkt_line::write(&mut request, &format!("have {have}"));
    }
    pkt_line::write(&mut request, "done");
    if server.version == Version::V2 {
        request.push_str(FLUSH);
    }
    request
}

async fn post(source: &Source, contact: &Contact, url: &Url, request: String) -> Result<Body, RemoteError> {
    let begin = if contact.is_at_origin { Session::to_origin } else { Session::to_elsewhere };
    let mut builder = begin(&source.session(), Method::POST, url)
        .header(CONTENT_TYPE, "application/x-git-upload-pack-request")
        .header(ACCEPT, "application/x-git-upload-pack-result")
        .body(request);
    if contact.server.version == Version::V2 {
        builder = builder.header(GIT_PROTOCOL, VERSION_2);
    }
    let response = source.exchange(builder, url).await?;
    let response = check(response, url, "result").await?;
    Ok(source.body(response, url.clone()))
}

/// SECURITY: a page for people, of a login form or a proxy, must not be taken for an empty repository.
async fn check(response: Response, url: &Url, what: &str) -> Result<Response, RemoteError> {
    if response.status() != StatusCode::OK {
        return Err(SourceError::of_status(response, url).await.into());
    }
    let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if kind == format!("application/x-git-upload-pack-{what}") {
        return Ok(response);
    }
    let kind = escaped(kind).to_string();
    let why = format!("it answers with Content-Type {kind:?}, so it is no git repository over smart HTTP");
    Err(RemoteError::Answer { url: display(url), why })
}

async fn read(mut body: Body) -> Result<Vec<u8>, RemoteError> {
    let bytes = body.read(max_refs(memory_limit())).await?;
    bytes.ok_or_else(|| {
        let why = "it lists more refs than there is memory for".to_owned();
        RemoteError::Answer { url: display(body.url()), why }
    })
}

fn no_such_ref(contact: &Contact, cause: &RefError) -> RemoteError {
    RemoteError::Answer { url: display(&contact.base), why: cause.to_string() }
}

fn unlike_git(url: &Url, error: &io::Error) -> RemoteError {
    let why = match error.get_ref().and_then(|inner| inner.downcast_ref::<ServerRefusal>()) {
        Some(refusal) => refusal.to_string(),
        None if error.kind() == io::ErrorKind::UnexpectedEof => "the answer is cut off".to_owned(),
        None => error.to_string(),
    };
    RemoteError::Answer { url: display(url), why }
}

fn greeting_url(repository: &Url) -> Url {
    let mut url = with_suffix(repository, "/info/refs");
    url.set_query(Some("service=git-upload-pack"));
    url
}

fn command_url(base: &Url) -> Url {
    with_suffix(base, "/git-upload-pack")
}

fn with_suffix(url: &Url, suffix: &str) -> Url {
    let mut url = url.clone();
    let path = format!("{}{suffix}", url.path().trim_end_matches('/'));
    url.set_path(&path);
    url
}

/// The repository whose greeting this URL is.
fn base_of(greeting: &Url) -> Option<Url> {
    let mut base = greeting.clone();
    let path = greeting.path().strip_suffix("/info/refs")?.to_owned();
    base.set_path(&path);
    base.set_query(None);
    Some(base)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    #[test]
    fn a_fetch_says_what_is_there_already() {
        let id = ObjectId::parse("30d74d258442c7c65512eafab474568dd706c430").unwrap();
        let tip = Tip::of_commit(id);
        let request =
            |version, have| fetch_request(Server { version, format: ObjectFormat::Sha1 }, &tip, have);
        let v2 = request(Version::V2, Some(id));
        assert!(v2.starts_with("0012command=fetch\n"), "{v2}");
        assert!(
            v2.contains(&format!(
                "0032want {id}\n0035shallow {id}\n000ddeepen 1\n0032have {id}\n0009done\n0000"
            )),
            "{v2}"
        );
        let v0 = request(Version::V0, None);
        assert!(v0.contains("shallow side-band-64k ofs-delta"), "{v0}");
        assert!(v0.ends_with("000ddeepen 1\n00000009done\n"), "{v0}");
    }

    #[test]
    fn a_list_of_refs_does_not_take_more_memory_than_there_is() {
        assert_eq!([None, Some(64 << 20)].map(max_refs), [128 << 20, (64 << 20) / 5]);
    }

    #[test]
    fn urls() {
        let url = |text: &str| Url::parse(text).unwrap();
        let greeting = greeting_url(&url("https://host/owner/repo.git/"));
        assert_eq!(greeting.as_str(), "https://host/owner/repo.git/info/refs?service=git-upload-pack");
        assert_eq!(base_of(&greeting).unwrap().as_str(), "https://host/owner/repo.git");
        assert_eq!(command_url(&url("https://host/a")).as_str(), "https://host/a/git-upload-pack");
    }

    #[test]
    fn the_pack_comes_behind_what_is_said_about_it() {
        let answer = |version| Answer { version, url: Url::parse("https://host/a").unwrap() };
        let pack = |version, input: &'static str| {
            let mut pack = String::new();
            answer(version).pack(input.as_bytes())?.read_to_string(&mut pack).map(|_| pack)
        };
        let frames = "0011shallow-info\n000fshallow abc0001000dpackfile\n0009\u{1}PACK0000";
        assert_eq!(pack(Version::V2, frames).unwrap(), "PACK");
        assert_eq!(pack(Version::V0, "000fshallow abc00000008NAK\n0009\u{1}PACK0000").unwrap(), "PACK");
        let refused = pack(Version::V2, "0013ERR not our ref").unwrap_err();
        assert_eq!(refused.to_string(), "the git server refuses: not our ref");
    }
}
