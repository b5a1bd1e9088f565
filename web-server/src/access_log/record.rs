//! What a line says: the names are OpenTelemetry's semantic conventions, the order is the contract's (docs/contract.md).

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use http::header::{HOST, HeaderName, REFERER, USER_AGENT};
use http::request::Parts;
use http::{HeaderValue, StatusCode, Uri, Version};
use serde::Serialize;

use crate::published::ReleaseId;

/// One response, when it came to its end.
#[derive(Debug)]
pub struct Record<'a> {
    /// What was asked; none where what came was no request.
    pub request: Option<&'a Parts>,
    /// As the response's X-Request-Id has it.
    pub request_id: &'a HeaderValue,
    /// Who asked.
    pub peer: SocketAddr,
    /// When the request arrived.
    pub arrived: SystemTime,
    /// From then to the end of the response.
    pub took: Duration,
    /// As it was sent.
    pub status: StatusCode,
    /// Body bytes that were sent.
    pub sent: u64,
    /// The release that it was answered from.
    pub release: Option<&'a ReleaseId>,
}

#[derive(Serialize)]
struct Line<'a> {
    timestamp: String,
    #[serde(rename = "client.address")]
    client_address: String,
    #[serde(rename = "http.request.method")]
    method: &'a str,
    #[serde(rename = "url.path")]
    path: &'a str,
    #[serde(rename = "url.query")]
    query: &'a str,
    #[serde(rename = "http.response.status_code")]
    status: u16,
    #[serde(rename = "http.response.body.size")]
    body_size: u64,
    #[serde(rename = "http.server.request.duration")]
    duration: f64,
    #[serde(rename = "network.protocol.version")]
    version: &'a str,
    #[serde(rename = "server.address")]
    server_address: String,
    #[serde(rename = "user_agent.original")]
    user_agent: String,
    #[serde(rename = "http.request.header.referer")]
    referer: String,
    #[serde(rename = "request.id")]
    request_id: String,
    #[serde(rename = "release.id")]
    release_id: &'a str,
}

impl Record<'_> {
    /// One JSON object and a line feed. JSON escapes whatever a client may have put into it, line feeds first of all.
    ///
    /// # Panics
    /// Never: what is in a line is text and numbers.
    pub fn to_json_line(&self) -> Vec<u8> {
        let uri = self.request.map(|request| &request.uri);
        let server = uri.and_then(Uri::authority).map_or_else(|| self.header(&HOST), ToString::to_string);
        let line = Line {
            timestamp: humantime::format_rfc3339_micros(self.arrived).to_string(),
            client_address: self.peer.ip().to_canonical().to_string(),
            method: self.request.map_or("", |request| request.method.as_str()),
            path: uri.map_or("", Uri::path),
            query: uri.and_then(Uri::query).unwrap_or_default(),
            status: self.status.as_u16(),
            body_size: self.sent,
            duration: Duration::from_micros(u64::try_from(self.took.as_micros()).unwrap_or(u64::MAX))
                .as_secs_f64(),
            version: match self.request.map(|request| request.version) {
                None => "",
                Some(Version::HTTP_10) => "1.0",
                Some(_) => "1.1",
            },
            server_address: server,
            user_agent: self.header(&USER_AGENT),
            referer: self.header(&REFERER),
            request_id: text(self.request_id),
            release_id: self.release.map_or("", ReleaseId::as_str),
        };
        let mut json = serde_json::to_vec(&line).expect("text and numbers are always JSON");
        json.push(b'\n');
        json
    }

    fn header(&self, name: &HeaderName) -> String {
        self.request.and_then(|request| request.headers.get(name)).map(text).unwrap_or_default()
    }
}

/// A header's bytes need not be text; a line of the log has to be.
fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}
