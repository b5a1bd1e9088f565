//! One request and its response, from the request's arrival to the last byte sent.
//!
//! Everything that has to be done exactly once per response hangs on the end of its body: the counters, and its line in the
//! access log, with the bytes that were really sent, however it ended.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode, Version};
use hyper::body::{Frame, SizeHint};

use crate::access_log::{AccessLog, Record};
use crate::body::Payload;
use crate::conversation::Conversation;
use crate::metrics::Metrics;
use crate::published::ReleaseId;
use crate::request_id::{REQUEST_ID, RequestId};
use crate::route::Reply;

/// Where exchanges are accounted for.
#[derive(Debug, Clone)]
pub struct Accounts {
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Where there is one.
    pub access_log: Option<Arc<AccessLog>>,
    /// Set when the drain begins: no connection is kept alive from then on.
    pub draining: Arc<AtomicBool>,
}

impl Accounts {
    /// Something came from `client` that was no request, and was answered with an empty `status`.
    pub fn refused(&self, client: &str, status: StatusCode) {
        self.metrics.refused.inc();
        if let Some(log) = &self.access_log {
            log.write(&Record {
                request: None,
                request_id: RequestId::make_up().as_bytes(),
                client,
                arrived: SystemTime::now(),
                took: Duration::ZERO,
                status,
                sent: 0,
                release: None,
            });
        }
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub struct Exchange {
    /// What was asked.
    pub request: Parts,
    /// What it has in common with the others of its connection.
    pub conversation: Arc<Conversation>,
    arrived: SystemTime,
    began: Instant,
    id: RequestId,
    answered: Option<(StatusCode, Option<ReleaseId>)>,
    sent: u64,
}

impl Exchange {
    /// A request has arrived.
    pub fn begin(request: Parts, conversation: Arc<Conversation>) -> Self {
        conversation.accounts.metrics.in_flight.inc();
        let id = RequestId::of(&request.headers);
        Self {
            request,
            conversation,
            arrived: SystemTime::now(),
            began: Instant::now(),
            id,
            answered: None,
            sent: 0,
        }
    }

    /// Takes the reply, and makes it what goes over the wire.
    pub fn answer(mut self, reply: Reply) -> Response<Sending> {
        let Reply { response, release } = reply;
        let (mut head, mut payload) = response.into_parts();
        head.headers.insert(REQUEST_ID, self.id.header());
        if self.request.version == Version::HTTP_2 {
            // There it would say nothing about the connection, and is forbidden (RFC 9113 section 8.2.2).
            head.headers.remove(CONNECTION);
        } else if self.conversation.accounts.draining.load(Ordering::Relaxed) {
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
        self.answered = Some((head.status, release));
        self.conversation.turn.sending();
        Response::from_parts(head, Sending { payload, exchange: self })
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let Conversation { accounts, turn, client, .. } = &*self.conversation;
        accounts.metrics.in_flight.dec();
        turn.answered();
        // A client that left before there was an answer got none: there is nothing to account for.
        let Some((status, release)) = &self.answered else { return };
        turn.sent();
        let took = self.began.elapsed();
        accounts.metrics.answered(&self.request.method, *status, self.sent, took);
        if let Some(log) = &accounts.access_log {
            log.write(&Record {
                request: Some(&self.request),
                request_id: self.id.as_bytes(),
                client,
                arrived: self.arrived,
                took,
                status: *status,
                sent: self.sent,
                release: release.as_ref(),
            });
        }
    }
}

/// A response's body while it is sent.
#[derive(Debug)]
pub struct Sending {
    payload: Payload,
    exchange: Exchange,
}

impl hyper::body::Body for Sending {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let Self { payload, exchange } = &mut *self;
        exchange.conversation.turn.moved();
        payload.poll_next(context, exchange.conversation.outbox.as_ref()).map(|piece| {
            piece.map(|piece| match piece {
                Ok(bytes) => {
                    self.exchange.sent += bytes.len() as u64;
                    Ok(Frame::data(bytes))
                }
                Err(error) => {
                    let path = self.exchange.request.uri.path();
                    tracing::error!(path, %error, sent = self.exchange.sent, "cut a response short");
                    Err(error)
                }
            })
        })
    }

    fn is_end_stream(&self) -> bool {
        self.payload.length() == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.payload.length().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
