//! Heads of requests, while their requests are answered: what one takes in memory, which can be many times what it takes on the
//! wire, and what its connection is charged for that.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Request, Uri};

use crate::memory::NoRoom;
use crate::net::table::Slot;

/// What a head may take that is part of what its connection, or its stream, is charged for anyway. A browser's takes less, with what
/// proxies add to it, unless it has long or many cookies: over HTTP/2 each can be a field of its own.
const INCLUDED: usize = 6 * 1024;
/// What a table has for each field that it has room for, and for each further value of a field that it has room for.
const FIELD: usize = 112;
const FURTHER_VALUE: usize = 72;
/// What the allocations of a name and a value take besides their bytes.
const ALLOCATIONS: usize = 64;

/// Charges a connection for an HTTP/1.1 head. Its bytes are in the read buffer, which is accounted for.
pub(super) fn charge_http1<B>(slot: &Arc<Slot>, request: &mut Request<B>) -> Result<(), NoRoom> {
    let extra = extra_http1(request);
    if extra > 0 { charge(slot, request, extra) } else { Ok(()) }
}

/// Charges a connection for an HTTP/2 head with its bytes. These are parts of the frames that brought them, whose buffers can be
/// much larger, and are given back here.
pub(super) fn charge_http2<B>(slot: &Arc<Slot>, request: &mut Request<B>) -> Result<(), NoRoom> {
    let extra = extra_http2(request);
    if extra > 0 {
        charge(slot, request, extra)?;
        copy(request);
    }
    Ok(())
}

fn extra_http1<B>(request: &Request<B>) -> u64 {
    table(request.headers()).saturating_sub(INCLUDED) as u64
}

fn extra_http2<B>(request: &Request<B>) -> u64 {
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    let fields = request.headers().iter();
    let bytes: usize = fields.map(|(name, value)| name.as_str().len() + value.len() + ALLOCATIONS).sum();
    (table(request.headers()) + target + bytes).saturating_sub(INCLUDED) as u64
}

fn table(headers: &HeaderMap) -> usize {
    let further = headers.len() - headers.keys_len();
    // Room for them doubles each time that they have filled it.
    let room = if further > 0 { further.next_power_of_two() } else { 0 };
    headers.capacity() * FIELD + room * FURTHER_VALUE
}

/// Charges a connection for one head, for as long as there is anything of its request. Of a head for which there is no room the
/// fields are dropped at once: many more may be read before this request has its turn.
fn charge<B>(slot: &Arc<Slot>, request: &mut Request<B>, extra: u64) -> Result<(), NoRoom> {
    if let Err(no_room) = slot.try_grow(extra) {
        *request.headers_mut() = HeaderMap::new();
        return Err(no_room);
    }
    let charged = Charged { slot: Arc::clone(slot), bytes: extra };
    request.extensions_mut().insert(Arc::new(charged));
    Ok(())
}

/// Gives a request bytes of its own.
fn copy<B>(request: &mut Request<B>) {
    // What was valid stays so.
    if let Ok(uri) = Uri::try_from(request.uri().to_string()) {
        *request.uri_mut() = uri;
    }
    for value in request.headers_mut().values_mut() {
        if let Ok(own) = HeaderValue::from_bytes(value.as_bytes()) {
            *value = own;
        }
    }
}

/// What a connection is charged for one of its requests, until this is dropped.
pub(super) struct Charged {
    slot: Arc<Slot>,
    bytes: u64,
}

impl Charged {
    /// Charges whether there is room or not.
    pub(super) fn new(slot: &Arc<Slot>, bytes: u64) -> Self {
        slot.grow(bytes);
        Self { slot: Arc::clone(slot), bytes }
    }
}

impl Drop for Charged {
    fn drop(&mut self) {
        self.slot.shrink(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::gauge::Gauge;

    use super::*;
    use crate::memory::Budget;
    use crate::net::closed_windows::Endpoints;
    use crate::net::table::ConnectionTable;

    fn request(fields: impl IntoIterator<Item = (String, String)>) -> Request<()> {
        let request = Request::get("/");
        fields
            .into_iter()
            .fold(request, |request, (name, value)| request.header(name, value))
            .body(())
            .unwrap()
    }

    #[test]
    fn a_browsers_head_costs_nothing_extra_and_many_short_fields_cost_their_table() {
        let usual = request((0..16).map(|number| (format!("sec-fetch-{number}"), "x".repeat(50))));
        assert_eq!((extra_http1(&usual), extra_http2(&usual)), (0, 0));
        let cookies = (0..9).map(|number| ("cookie".to_owned(), format!("{number}={}", "x".repeat(30))));
        let usual = (0..16).map(|number| (format!("sec-fetch-{number}"), "x".repeat(20)));
        let with_cookies = request(usual.chain(cookies));
        assert_eq!((extra_http1(&with_cookies), extra_http2(&with_cookies)), (0, 0));
        let different = request((0..900).map(|number| (format!("x{number}"), String::new())));
        let repeated = request((0..950).map(|_| ("x".to_owned(), String::new())));
        for many in [different, repeated] {
            assert!(extra_http1(&many) > 64 * 1024, "{}", extra_http1(&many));
            assert!(extra_http2(&many) > extra_http1(&many));
        }
        let long = request([("x".to_owned(), "x".repeat(31_000))]);
        assert_eq!(extra_http1(&long), 0, "it is in the read buffer");
        assert!(extra_http2(&long) > 24 * 1024);
    }

    #[test]
    fn a_copy_of_a_head_says_the_same() {
        let mut copied =
            Request::get("http://h:80/a%20b?c=d").header("x", "1").header("x", "2").body(()).unwrap();
        let before = copied.headers().clone();
        copy(&mut copied);
        assert_eq!(copied.headers(), &before);
        assert_eq!(copied.uri(), "http://h:80/a%20b?c=d");
        *copied.uri_mut() = Uri::from_static("*");
        copy(&mut copied);
        assert_eq!(copied.uri(), "*");
    }

    #[tokio::test]
    async fn a_head_is_charged_until_its_request_is_gone_and_where_there_is_no_room_its_fields_are_dropped() {
        let budget = Budget::hidden(Some(16 * 1024 * 1024));
        let connections = || budget.status()["connections_bytes"].as_u64().unwrap();
        let table = ConnectionTable::new(1, Arc::clone(&budget), Gauge::default(), Counter::default());
        let [ours, client] = ["127.0.0.1:9876", "192.0.2.1:1024"].map(|address| address.parse().unwrap());
        let slot = Arc::new(table.admit(Endpoints::new(ours, client)).await.unwrap());
        let before = connections();
        let short = || request([("x".to_owned(), String::new())]);
        let mut held = Vec::new();
        let refused = loop {
            let mut request = short();
            if charge(&slot, &mut request, 64 * 1024) == Err(NoRoom) {
                break request;
            }
            assert!(!request.headers().is_empty());
            held.push(request);
        };
        assert!(refused.headers().is_empty());
        assert_eq!(connections(), before + held.len() as u64 * 64 * 1024);
        assert_eq!(budget.excess(), 0);
        assert!(budget.take_for_new(256 * 1024).is_ok(), "there is room left for a new connection");
        budget.refund(crate::memory::Account::Connections, 256 * 1024);
        drop((refused, held));
        assert_eq!(connections(), before);
    }
}
