//! Which host a request is for: said once, and by all who look at it understood the same way.

use std::net::Ipv6Addr;

use http::Version;
use http::header::HOST;
use http::request::Parts;
use http::uri::Authority;

/// The host that was asked for (RFC 9112 section 3.2): in the request target, or else in exactly one valid Host field. HTTP/2 has
/// it in the target's place, and may leave the field out (RFC 9113 section 8.3.1).
///
/// # Errors
/// What is wrong with it, as a sentence for the client.
pub(crate) fn host(request: &Parts) -> Result<&str, &'static str> {
    let authority = request.uri.authority().map(Authority::as_str);
    let mut hosts = request.headers.get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => {
            let host = host.to_str().map_err(|_| "the Host field is not valid\n")?;
            if !is_host(host) {
                return Err("the Host field is not valid\n");
            }
            host
        }
        (None, _) if request.version < Version::HTTP_11 => "",
        (None, _) if request.version == Version::HTTP_2 && authority.is_some() => "",
        (None, _) => return Err("a Host field is missing\n"),
        (Some(_), Some(_)) => return Err("there is more than one Host field\n"),
    };
    match authority {
        Some(authority) if !is_host(authority) => Err("the host that is asked for is not valid\n"),
        // SECURITY: who looks at one of the two and who looks at the other must see the same.
        Some(authority) if request.version == Version::HTTP_2 && !host.is_empty() && host != authority => {
            Err("the Host field is not the :authority\n")
        }
        Some(authority) => Ok(authority),
        None => Ok(host),
    }
}

/// `uri-host [ ":" port ]`, of which the host may not be empty where the scheme is http (RFC 9110 section 4.2.1). A host is a name
/// or an address: of what RFC 3986 would allow besides, such as commas, nothing is a host.
fn is_host(text: &str) -> bool {
    let (host, rest) = if let Some(literal) = text.strip_prefix('[') {
        let Some((address, rest)) = literal.split_once(']') else { return false };
        (address.parse::<Ipv6Addr>().is_ok(), rest)
    } else {
        let name = &text[..text.bytes().position(|byte| byte == b':').unwrap_or(text.len())];
        (is_name(name), &text[name.len()..])
    };
    host && match rest.strip_prefix(':') {
        Some(port) => {
            port.is_empty()
                || (port.bytes().all(|digit| digit.is_ascii_digit()) && port.parse::<u16>().is_ok())
        }
        None => rest.is_empty(),
    }
}

/// Labels with dots between them, none of which is empty; one dot may end it.
fn is_name(name: &str) -> bool {
    let mut before = b'.';
    // In one pass: every request comes through here.
    name.bytes().all(|byte| {
        let is_allowed = match byte {
            b'.' => before != b'.',
            b'-' | b'_' | b'~' | b'%' => true,
            _ => byte.is_ascii_alphanumeric(),
        };
        before = byte;
        is_allowed
    }) && !name.is_empty()
}

#[cfg(test)]
mod tests {
    use super::is_host;

    #[test]
    fn names_addresses_and_ports() {
        for host in
            ["a", "a.b", "a.b.", "A-1_x:80", "a:", "a:65535", "127.0.0.1:1", "[::1]", "[::1]:80", "a%20b"]
        {
            assert!(is_host(host), "{host}");
        }
        for host in [
            "", ".", "..", "a..b", ".a", "a,b", "a:65536", "a:b", "a:+1", "[", "[::1", "[a]", "[::1]80",
            "a@b", "a b", ":80",
        ] {
            assert!(!is_host(host), "{host}");
        }
    }
}
