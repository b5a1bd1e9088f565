//! Who a client is behind proxies: `X-Forwarded-For` and `Forwarded` (RFC 7239), believed as far as they were written by
//! proxies that the operator named.
//!
//! SECURITY: a client can send these fields, too. Every proxy appends the address that it talks to, so the list is read from
//! its right end: as long as the address is a trusted proxy, the one to its left was written by that proxy. The first
//! address that is no trusted proxy is the client, whatever is to its left.

use std::net::{IpAddr, SocketAddr};

use http::header::{FORWARDED, HeaderMap, HeaderName};
use ipnet::IpNet;

/// The field that nearly every proxy writes.
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// Bits of an IPv4-mapped IPv6 address before the IPv4 address.
const MAPPED_PREFIX: u8 = 96;
/// Addresses that are read at most: no request comes through more proxies.
const MAX_HOPS: usize = 32;

/// The networks whose proxies are believed. Empty where `--trusted-proxies` is not given.
#[derive(Debug, Clone, Default)]
pub(crate) struct TrustedProxies(pub(crate) Vec<IpNet>);

impl TrustedProxies {
    fn contains(&self, ip: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&ip))
    }

    /// The client of a request that came from `peer`, where it is not the peer itself.
    ///
    /// Where both fields are there and do not agree, one of them was written by the client and passed on by a proxy that
    /// knows only the other: neither is believed then.
    pub(crate) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> Option<IpAddr> {
        if !self.contains(peer.to_canonical()) {
            return None;
        }
        let by_list = headers
            .contains_key(X_FORWARDED_FOR)
            .then(|| self.resolve(right_to_left(headers, &X_FORWARDED_FOR).map(address)));
        let by_standard = headers
            .contains_key(FORWARDED)
            .then(|| self.resolve(right_to_left(headers, &FORWARDED).map(forwarded_for)));
        match (by_list, by_standard) {
            (Some(one), Some(other)) if one != other => None,
            (Some(client), _) | (None, Some(client)) => client,
            (None, None) => None,
        }
    }

    /// The first address that is no trusted proxy; the last trusted one where there is no such address, or where what is
    /// left of it is no address.
    fn resolve(&self, hops: impl Iterator<Item = Option<IpAddr>>) -> Option<IpAddr> {
        let mut client = None;
        for hop in hops.take(MAX_HOPS) {
            let Some(hop) = hop else { break };
            client = Some(hop);
            if !self.contains(hop) {
                break;
            }
        }
        client
    }
}

/// The elements of a list. Empty ones count for nothing (RFC 9110 section 5.6.1); a field line that is not ASCII is an element that
/// is no address.
fn right_to_left<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h str> {
    let values = headers.get_all(name).iter().rev();
    let elements = values.flat_map(|value| value.to_str().unwrap_or("unreadable").rsplit(','));
    elements.map(str::trim).filter(|element| !element.is_empty())
}

/// The `for` parameter of one element of `Forwarded`.
fn forwarded_for(element: &str) -> Option<IpAddr> {
    let node = element.split(';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case("for").then(|| value.trim())
    })?;
    address(node.trim_matches('"'))
}

/// `192.0.2.1`, `192.0.2.1:4711`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:4711`; a name such as `unknown` or
/// `_hidden` is none.
fn address(node: &str) -> Option<IpAddr> {
    let ip = node.parse::<IpAddr>().ok().or_else(|| Some(node.parse::<SocketAddr>().ok()?.ip()));
    let bracketed = || node.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    ip.or_else(bracketed).map(|ip: IpAddr| ip.to_canonical())
}

/// One value of `--trusted-proxies`.
///
/// # Errors
/// A sentence that shows how it is written.
pub(crate) fn network(text: &str) -> Result<IpNet, String> {
    let network = text.parse::<IpNet>().ok().or_else(|| Some(IpNet::from(text.parse::<IpAddr>().ok()?)));
    network
        .map(|network| canonical(network).trunc())
        .ok_or_else(|| format!("{text} is no network; write it like 10.0.0.0/8, 192.0.2.7 or fd00::/8"))
}

/// Of a network of mapped addresses (`::ffff:10.0.0.0/104`) the one that is meant, because peers have canonical addresses, too.
fn canonical(network: IpNet) -> IpNet {
    let IpNet::V6(mapped) = network else { return network };
    let prefix = mapped.prefix_len().checked_sub(MAPPED_PREFIX);
    let canonical = mapped.addr().to_ipv4_mapped().zip(prefix);
    canonical.and_then(|(ip, prefix)| IpNet::new(ip.into(), prefix).ok()).unwrap_or(network)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn client(peer: &str, fields: &[(HeaderName, &str)]) -> String {
        let proxies = ["10.0.0.0/8", "127.0.0.1", "fd00::/8"].map(|text| network(text).unwrap());
        let headers: HeaderMap = HeaderMap::from_iter([]);
        let headers = fields.iter().fold(headers, |mut headers, (name, value)| {
            headers.append(name, HeaderValue::from_str(value).unwrap());
            headers
        });
        let client = TrustedProxies(proxies.to_vec()).client(peer.parse().unwrap(), &headers);
        client.map_or_else(|| "the peer".to_owned(), |client| client.to_string())
    }

    #[test]
    fn the_first_address_from_the_right_that_is_no_proxy_is_the_client() {
        let list = |value| [(X_FORWARDED_FOR, value)];
        assert_eq!(client("10.0.0.1", &list("192.0.2.1")), "192.0.2.1");
        assert_eq!(client("10.0.0.1", &list("6.6.6.6, 192.0.2.1, 10.2.3.4")), "192.0.2.1");
        assert_eq!(client("::ffff:10.0.0.1", &list("::ffff:192.0.2.1")), "192.0.2.1");
        assert_eq!(client("fd00::1", &list("[2001:db8::1]:4711,fd00::2")), "2001:db8::1");
        assert_eq!(client("127.0.0.1", &list("192.0.2.1:80")), "192.0.2.1");
        // Only proxies: the outermost one asks for itself.
        assert_eq!(client("10.0.0.1", &list("10.0.0.3, 10.0.0.2")), "10.0.0.3");
        // What is no address ends the way.
        assert_eq!(client("10.0.0.1", &list("192.0.2.1, unknown, 10.0.0.2")), "10.0.0.2");
        assert_eq!(client("10.0.0.1", &list("unknown")), "the peer");
        assert_eq!(client("10.0.0.1", &list("6.6.6.6, 192.0.2.1,, 10.2.3.4 , ")), "192.0.2.1");
        let twice = [(X_FORWARDED_FOR, "6.6.6.6"), (X_FORWARDED_FOR, "192.0.2.1")];
        assert_eq!(client("10.0.0.1", &twice), "192.0.2.1");
    }

    #[test]
    fn a_peer_that_is_not_trusted_is_the_client() {
        assert_eq!(client("192.0.2.9", &[(X_FORWARDED_FOR, "192.0.2.1")]), "the peer");
        assert_eq!(client("10.0.0.1", &[]), "the peer");
    }

    #[test]
    fn forwarded_is_read_the_same_way() {
        let forwarded = |value| [(FORWARDED, value)];
        let value = "for=6.6.6.6, For=\"[2001:db8::1]:4711\";proto=https, for=10.0.0.2;by=10.0.0.1";
        assert_eq!(client("10.0.0.1", &forwarded(value)), "2001:db8::1");
        assert_eq!(client("10.0.0.1", &forwarded("for=_hidden")), "the peer");
    }

    #[test]
    fn two_fields_that_do_not_agree_are_not_believed() {
        let both = |one, other| [(X_FORWARDED_FOR, one), (FORWARDED, other)];
        assert_eq!(client("10.0.0.1", &both("192.0.2.1", "for=192.0.2.1")), "192.0.2.1");
        assert_eq!(client("10.0.0.1", &both("192.0.2.1", "for=6.6.6.6")), "the peer");
    }

    #[test]
    fn a_network_is_a_prefix_or_an_address() {
        assert!(network("10.0.0.1").is_ok() && network("10.0.0.7/8").is_ok());
        // Peers are compared as IPv4 where their addresses are mapped ones.
        for (mapped, canonical) in [
            ("::ffff:10.0.0.7/104", "10.0.0.0/8"),
            ("::ffff:10.0.0.7", "10.0.0.7/32"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
            ("fd00::/8", "fd00::/8"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(network(mapped).unwrap().to_string(), canonical, "{mapped}");
        }
        for wrong in ["10.0.0.0/33", "proxy", ""] {
            assert!(network(wrong).is_err(), "{wrong}");
        }
    }
}
