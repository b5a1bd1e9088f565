//! "Sync now": the one thing that the page can ask for.
//!
//! SECURITY: it does no harm, and still is not for every client. It takes the flag; a peer on this machine, or in this Pod, that is
//! no proxy; and a page that came from this server under a name for this machine. So neither another site in the same browser nor a
//! name that another site has pointed at this machine gets anything done.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::header::{HOST, HeaderName, ORIGIN};
use http::request::Parts;
use http::uri::Authority;
use http::{Response, StatusCode};

use crate::client::Client;
use crate::response::{Body, fresh, sentence};

/// Where it is asked for.
pub(crate) const PATH: &str = "/pod/sync";
/// How long a sync may take; the next one that is due will do the rest.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Proof that a request may have its way.
#[derive(Debug)]
pub(crate) struct Permit(());

/// Why it may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It comes from another machine.
    NotLocal,
    /// It comes from another site's page, or from no page.
    OtherOrigin,
}

impl From<Refusal> for Response<Body> {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotLocal => {
                sentence(StatusCode::FORBIDDEN, "only from this machine: open the page on localhost\n")
            }
            Refusal::OtherOrigin => sentence(
                StatusCode::FORBIDDEN,
                "only from the page itself; others ask POST /sync of file-puller\n",
            ),
        }
    }
}

/// Decides.
///
/// # Errors
/// Where the answer is no.
pub(crate) fn permit(request: &Parts, peer: SocketAddr) -> Result<Permit, Refusal> {
    if !peer.ip().to_canonical().is_loopback() || request.headers.keys().any(is_of_a_proxy) {
        return Err(Refusal::NotLocal);
    }
    let given = || Authority::try_from(request.headers.get(HOST)?.as_bytes()).ok();
    let host = request.uri.authority().cloned().or_else(given).ok_or(Refusal::OtherOrigin)?;
    if !is_local(host.host()) {
        return Err(Refusal::NotLocal);
    }
    let origin = request.headers.get(ORIGIN).and_then(|origin| origin.to_str().ok());
    let origin = origin.and_then(|origin| origin.split_once("://"));
    if origin.is_some_and(|(_, origin)| origin.eq_ignore_ascii_case(host.as_str())) {
        Ok(Permit(()))
    } else {
        Err(Refusal::OtherOrigin)
    }
}

/// Whether a proxy adds this field. A proxy on this machine does not make its clients local, whatever the field says of them: its
/// value may be the client's own.
fn is_of_a_proxy(name: &HeaderName) -> bool {
    let name = name.as_str();
    matches!(name, "forwarded" | "via" | "x-real-ip") || name.starts_with("x-forwarded-")
}

/// Whether this is a name for the speaker's own machine.
fn is_local(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Asks file-puller, and passes its answer on.
pub(crate) async fn sync(_permit: Permit, puller: SocketAddr) -> Response<Body> {
    match Client::new(puller).post("/sync", TIMEOUT).await {
        Ok(answer) => {
            let mut response = fresh("application/json", Body::Whole(answer.body));
            *response.status_mut() = answer.status;
            response
        }
        Err(silence) => sentence(StatusCode::BAD_GATEWAY, format!("file-puller: {silence}\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(peer: &str, host: &str, origin: Option<&str>) -> Result<(), Refusal> {
        ask_with(peer, &[("host", host)], origin)
    }

    fn ask_with(peer: &str, fields: &[(&str, &str)], origin: Option<&str>) -> Result<(), Refusal> {
        let mut request = http::Request::post(PATH);
        for (name, value) in fields.iter().copied().chain(origin.map(|origin| ("origin", origin))) {
            request = request.header(name, value);
        }
        let (request, ()) = request.body(()).unwrap().into_parts();
        permit(&request, peer.parse().unwrap()).map(|_| ())
    }

    #[test]
    fn only_this_page_on_this_machine_may_act() {
        let (here, page) = ("127.0.0.1:1", Some("http://localhost:9876"));
        assert_eq!(ask(here, "localhost:9876", page), Ok(()));
        assert_eq!(ask("[::1]:1", "[::1]:9876", Some("http://[::1]:9876")), Ok(()));
        assert_eq!(ask("10.0.0.9:1", "localhost:9876", page), Err(Refusal::NotLocal));
        for other in [None, Some("null"), Some("http://localhost:9877"), Some("http://evil.example")] {
            assert_eq!(ask(here, "localhost:9876", other), Err(Refusal::OtherOrigin), "{other:?}");
        }
        // Another site's name that leads to this machine.
        let (host, origin) = ("evil.example:9876", Some("http://evil.example:9876"));
        assert_eq!(ask(here, host, origin), Err(Refusal::NotLocal));
    }

    #[test]
    fn a_proxy_on_this_machine_does_not_make_its_clients_local() {
        let host = ("host", "localhost:9876");
        for field in [
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-for", "127.0.0.1"),
            ("x-forwarded-proto", "http"),
            ("forwarded", "for=x"),
            ("x-real-ip", ""),
            ("via", "1.1 proxy"),
        ] {
            let asked = ask_with("127.0.0.1:1", &[host, field], Some("http://localhost:9876"));
            assert_eq!(asked, Err(Refusal::NotLocal), "{field:?}");
        }
    }
}
