//! One request and its response, from the request's arrival to the last byte sent.
//!
//! Everything that has to be done exactly once per response hangs on the end of its body: the counters, and its line in the
//! access log, with the bytes that were really sent, however it ended.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Response, StatusCode, Version};
use hyper::body::{Frame, SizeHint};

use crate::access_log::{AccessLog, Record};
use crate::content::header_policy::REQUEST_ID;
use crate::content::release::ReleaseId;
use crate::http::body::Payload;
use crate::http::parking::{Arrival, Parking, ParkingSpace};
use crate::http::request_id::RequestId;
use crate::http::response::Reply;
use crate::http::sendfile::SendfileQueue;
use crate::http::state::ConnectionState;
use crate::http::trusted_proxies::TrustedProxies;
use crate::memory::ChunkBudget;
use crate::metrics::Metrics;

/// Where exchanges are accounted for.
#[derive(Debug)]
pub(crate) struct Telemetry {
    /// Counters.
    pub(crate) metrics: Arc<Metrics>,
    /// Where there is one.
    pub(crate) access_log: Option<Arc<AccessLog>>,
    pub(crate) trusted_proxies: TrustedProxies,
    /// Set when the drain begins: no connection is kept alive from then on.
    pub(crate) draining: AtomicBool,
}

impl Telemetry {
    /// Something came from `client` that was no request, and was answered with an empty `status`.
    pub(crate) fn record_malformed(&self, client: &str, status: StatusCode) {
        self.metrics.refused.inc();
        if let Some(log) = &self.access_log {
            log.write(&Record {
                request: None,
                request_id: RequestId::make_up().as_bytes(),
                client,
                peer: None,
                arrived: SystemTime::now(),
                took: Duration::ZERO,
                status,
                sent: 0,
                release: None,
            });
        }
    }
}

/// What the exchanges of one connection share.
#[derive(Debug)]
pub(crate) struct ConnectionInfo {
    pub(crate) peer: SocketAddr,
    /// The peer's address as the log has it: written once, for all lines.
    pub(crate) client: Box<str>,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) state: ConnectionState,
    /// What bodies are read into.
    pub(crate) chunks: ChunkBudget,
    /// Files that the kernel sends; HTTP/2 has to read what it sends.
    pub(crate) sendfile: Option<SendfileQueue>,
    /// Where its request waits, if that can be outside of HTTP; HTTP/2 has others beside it.
    pub(crate) parking: Option<Parking>,
}

/// RFC 7240: the answer to a client that preferred to wait says that it did.
pub(crate) const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// A request that is being answered.
#[derive(Debug)]
pub(crate) struct Exchange {
    /// What was asked.
    pub(crate) request: Parts,
    /// What it has in common with the others of its connection.
    pub(crate) connection: Arc<ConnectionInfo>,
    arrival: Arrival,
    id: RequestId,
    /// The client's address as the log has it, where trusted proxies say that it is not the peer's.
    client: Option<Box<str>>,
    answered: Option<(StatusCode, Option<ReleaseId>)>,
    sent: u64,
    /// Whether the client has something to take: what the body waits for while a piece is read is ours.
    sending: bool,
    /// Whether the client preferred to wait, so that the time says nothing about the server.
    held: bool,
}

impl Exchange {
    /// A request has arrived.
    pub(crate) fn begin(request: Parts, connection: Arc<ConnectionInfo>) -> Self {
        connection.telemetry.metrics.in_flight.inc();
        let id = RequestId::of(&request.headers);
        Self {
            request,
            connection,
            arrival: Arrival::now(),
            id,
            client: None,
            answered: None,
            sent: 0,
            sending: false,
            held: false,
        }
    }

    /// Lets the request be held outside of HTTP; or takes over what is known of it, if it was.
    pub(crate) fn may_park(&mut self) {
        let Some(parking) = &self.connection.parking else { return };
        if let Some((arrival, waited)) = parking.resume() {
            self.arrival = arrival;
            self.request.extensions.insert(waited);
        }
        let space = ParkingSpace { parking: parking.clone(), arrival: self.arrival };
        self.request.extensions.insert(space);
    }

    /// Who asks: the peer, or the client that trusted proxies name.
    pub(crate) fn identify_client(&mut self) -> IpAddr {
        let ConnectionInfo { peer, telemetry, .. } = &*self.connection;
        let named = telemetry.trusted_proxies.client(peer.ip(), &self.request.headers);
        self.client = named.map(|client| client.to_string().into());
        named.unwrap_or_else(|| peer.ip().to_canonical())
    }

    /// Takes the reply, and makes it what goes over the wire.
    pub(crate) fn answer(mut self, reply: Reply) -> Response<ResponseBody> {
        let Reply { response, release } = reply;
        let (mut head, mut payload) = response.into_parts();
        head.headers.insert(REQUEST_ID, self.id.header());
        if self.request.version == Version::HTTP_2 {
            // There it would say nothing about the connection, and is forbidden (RFC 9113 section 8.2.2).
            head.headers.remove(CONNECTION);
        } else if self.connection.telemetry.draining.load(Ordering::Relaxed) {
            head.headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if self.request.method == Method::HEAD {
            // All that GET would say, length included, and no body.
            if head.status != StatusCode::NOT_MODIFIED
                && head.status != StatusCode::NO_CONTENT
                && let Some(length) = payload.length()
            {
                head.headers.insert(CONTENT_LENGTH, length.into());
            }
            payload = Payload::Empty;
        }
        // As in `conditional::evaluate`, cheaper than to look the name up.
        self.held = head.headers.keys().any(|name| name == PREFERENCE_APPLIED);
        self.answered = Some((head.status, release));
        self.set_sending(true);
        Response::from_parts(head, ResponseBody { payload, exchange: self })
    }

    fn set_sending(&mut self, sending: bool) {
        if std::mem::replace(&mut self.sending, sending) == sending {
            return;
        }
        let state = &self.connection.state;
        if sending { state.sending() } else { state.sent() }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.set_sending(false);
        let ConnectionInfo { telemetry, state, client, .. } = &*self.connection;
        telemetry.metrics.in_flight.dec();
        state.answered();
        // A client that left before there was an answer got none: there is nothing to account for.
        let Some((status, release)) = &self.answered else { return };
        let took = self.arrival.began.elapsed();
        telemetry.metrics.answered(&self.request.method, *status, self.sent, (!self.held).then_some(took));
        if let Some(log) = &telemetry.access_log {
            log.write(&Record {
                request: Some(&self.request),
                request_id: self.id.as_bytes(),
                client: self.client.as_deref().unwrap_or(client),
                peer: self.client.is_some().then_some(client),
                arrived: self.arrival.at,
                took,
                status: *status,
                sent: self.sent,
                release: release.as_ref(),
            });
        }
    }
}

/// A response's body while it is sent.
pub(crate) struct ResponseBody {
    payload: Payload,
    exchange: Exchange,
}

impl hyper::body::Body for ResponseBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let Self { payload, exchange } = &mut *self;
        let ConnectionInfo { sendfile, chunks, state, .. } = &*exchange.connection;
        // Asked again while it waits for memory, a body has not come any further.
        let lacked_room = payload.lacks_room();
        let piece = payload.poll_next(context, sendfile.as_ref(), chunks);
        if !(lacked_room && payload.lacks_room()) {
            state.body_progressed();
        }
        // What lacks memory waits for other clients to take theirs: if all of them counted as being answered, none could make room.
        exchange.set_sending(piece.is_ready() || payload.lacks_room());
        let piece = ready!(piece);
        match &piece {
            Some(Ok(bytes)) => exchange.sent += bytes.len() as u64,
            Some(Err(error)) => {
                let path = exchange.request.uri.path();
                tracing::error!(path, %error, sent = exchange.sent, "cut a response short");
            }
            None => {}
        }
        Poll::Ready(piece.map(|piece| piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.payload.length() == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.payload.length().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::task::Waker;

    use futures_util::stream;
    use http::Request;
    use hyper::body::Body as _;
    use lifecycle::metrics::Registrar;
    use prometheus_client::registry::Registry;
    use tokio::sync::mpsc;

    use super::*;
    use crate::http::body::ByteStream;
    use crate::http::state::{Phase, Silence};
    use crate::memory::{Budget, OWN_CHUNKS_HTTP2};

    /// A disk that is slow must not look like a client that takes nothing.
    #[test]
    fn a_client_that_waits_for_the_next_piece_of_a_body_is_owed_an_answer() {
        let telemetry = Telemetry {
            metrics: Arc::new(Metrics::register(&mut Registrar::new(&mut Registry::default()))),
            access_log: None,
            trusted_proxies: TrustedProxies::default(),
            draining: AtomicBool::new(false),
        };
        let state = ConnectionState::default();
        let connection = Arc::new(ConnectionInfo {
            peer: (Ipv4Addr::LOCALHOST, 1).into(),
            client: "127.0.0.1".into(),
            telemetry: Arc::new(telemetry),
            state: state.clone(),
            chunks: ChunkBudget::new(&Budget::hidden(None), OWN_CHUNKS_HTTP2),
            sendfile: None,
            parking: None,
        });
        let (pieces, mut found) = mpsc::unbounded_channel();
        let body = Payload::Stream(ByteStream::new(stream::poll_fn(move |context| found.poll_recv(context))));
        state.requested();
        let exchange = Exchange::begin(Request::new(()).into_parts().0, connection);
        let mut body = exchange.answer(Response::new(body).into()).into_body();
        let mut poll = || Pin::new(&mut body).poll_frame(&mut Context::from_waker(Waker::noop())).is_ready();
        let waits_for_client = || match (state.phase(), state.silence()) {
            (Phase::Sending(_), Silence::Sending(_)) => true,
            (Phase::Answer, Silence::Answering) => false,
            other => panic!("{other:?}"),
        };
        assert!(waits_for_client());
        for _ in 0..2 {
            assert!(!poll() && !waits_for_client());
            pieces.send(Bytes::from_static(b"piece")).unwrap();
            assert!(poll() && waits_for_client());
        }
        assert!(!poll() && !waits_for_client());
        drop(body);
        assert_eq!(state.phase(), Phase::Idle);
    }
}
