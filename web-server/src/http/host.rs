//! Which host a request is for: said once, and by all who look at it understood the same way.

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

/// `uri-host [ ":" port ]`, of which the host may not be empty where the scheme is http (RFC 9110 section 4.2.1).
fn is_host(text: &str) -> bool {
    // Nearly all are this plain, and need no parser.
    let name = text.split_once(':').map_or(text, |(name, _)| name);
    let port = text.get(name.len() + 1..).unwrap_or_default();
    if !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'-')
        && port.bytes().all(|digit| digit.is_ascii_digit())
    {
        return true;
    }
    text.parse::<Authority>().is_ok_and(|authority| {
        let host = authority.host();
        let port = text.strip_prefix(host);
        !host.is_empty()
            && port.is_some_and(|port| {
                let digits = port.strip_prefix(':').unwrap_or(port);
                digits.bytes().all(|digit| digit.is_ascii_digit())
                    && (port.is_empty() || port.starts_with(':'))
            })
    })
}
