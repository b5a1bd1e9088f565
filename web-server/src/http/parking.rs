//! A held request outside of HTTP: the bytes of its head, and what it waits for.
//!
//! A puller waits for most of its life. Meanwhile HTTP's state and its read buffer of 8 KiB would be kept for it, and ten thousand
//! pullers would take a hundred megabytes. So HTTP gives the connection back, and when the wait is over the request is read
//! once more, from what is kept of it here, and answered.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use http::Version;
use http::request::Parts;
use parking_lot::Mutex;

use crate::content::editions::{Waited, Waiter};

/// Where the request of a connection is put while it is held.
#[derive(Debug, Clone, Default)]
pub(crate) struct Parking(Arc<Mutex<Space>>);

/// What a request takes along that may be held: an extension of it.
#[derive(Debug, Clone)]
pub(crate) struct ParkingSpace {
    pub(crate) parking: Parking,
    pub(crate) arrival: Arrival,
}

#[derive(Debug, Default)]
enum Space {
    #[default]
    Free,
    Held(Box<Held>),
    /// It is about to be read once more.
    Over(Box<(Arrival, Waited)>),
}

/// A request that is held.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) head: Bytes,
    pub(crate) arrival: Arrival,
    pub(crate) waiter: Waiter,
}

/// When a request arrived.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    pub(crate) at: SystemTime,
    pub(crate) began: Instant,
}

impl Arrival {
    pub(crate) fn now() -> Self {
        Self { at: SystemTime::now(), began: Instant::now() }
    }
}

impl Parking {
    /// Puts a request aside. HTTP gives the connection back then, and with it all that still waits for this future.
    pub(crate) async fn park(&self, request: &Parts, arrival: Arrival, waiter: Waiter) -> ! {
        *self.0.lock() = Space::Held(Box::new(Held { head: head(request), arrival, waiter }));
        std::future::pending().await
    }

    /// Whether a request was put aside.
    pub(crate) fn is_taken(&self) -> bool {
        matches!(*self.0.lock(), Space::Held(_))
    }

    /// The request that was put aside.
    pub(crate) fn take(&self) -> Option<Box<Held>> {
        let mut space = self.0.lock();
        match std::mem::take(&mut *space) {
            Space::Held(held) => Some(held),
            other => {
                *space = other;
                None
            }
        }
    }

    /// What the request waited for has come. It is the next that is read.
    pub(crate) fn waited(&self, arrival: Arrival, waited: Waited) {
        *self.0.lock() = Space::Over(Box::new((arrival, waited)));
    }

    /// Whether the request that is being read is one that has waited, and how that ended.
    pub(crate) fn resume(&self) -> Option<(Arrival, Waited)> {
        let mut space = self.0.lock();
        match std::mem::take(&mut *space) {
            Space::Over(over) => Some(*over),
            other => {
                *space = other;
                None
            }
        }
    }
}

/// A request's head as it would be sent: the same fields, in an order that is as good.
fn head(request: &Parts) -> Bytes {
    let version = if request.version == Version::HTTP_10 { "HTTP/1.0" } else { "HTTP/1.1" };
    let mut head = format!("{} {} {version}\r\n", request.method, request.uri).into_bytes();
    for (name, value) in &request.headers {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            head.extend_from_slice(part);
        }
    }
    head.extend_from_slice(b"\r\n");
    head.shrink_to_fit();
    head.into()
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn a_head_is_read_again_as_it_was() {
        let request = Request::get("/manifest.json?v=1")
            .header("host", "mirror:9876")
            .header("if-none-match", "\"a\"")
            .header("if-none-match", "\"b\"")
            .header("x-bytes", http::HeaderValue::from_bytes(b"\xe9\t").unwrap());
        let head = head(&request.body(()).unwrap().into_parts().0);
        assert_eq!(
            &*head,
            b"GET /manifest.json?v=1 HTTP/1.1\r\nhost: mirror:9876\r\nif-none-match: \"a\"\r\nif-none-match: \"b\"\r\nx-bytes: \xe9\t\r\n\r\n"
        );
    }
}
