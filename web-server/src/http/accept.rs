//! Accept-Encoding: which of a file's precompressed siblings a client gets (RFC 9110 section 12.5.3).

use http::header::{ACCEPT_ENCODING, HeaderMap};
use lifecycle::quality::{Quality, elements};

use crate::content::coding::Coding;
use crate::content::representation::Representation;

/// The one of a representation and its alternatives that suits the client best. `None` where the client refuses them all.
pub(crate) fn negotiate<'a>(
    headers: &HeaderMap,
    representation: &'a Representation,
) -> Option<&'a Representation> {
    if representation.alternatives.is_empty() && !headers.contains_key(ACCEPT_ENCODING) {
        return Some(representation);
    }
    let all = || std::iter::once(representation).chain(representation.alternatives.iter().map(AsRef::as_ref));
    let coding = preferred(headers, all().map(|one| one.coding))?;
    all().find(|one| one.coding == coding)
}

/// The coding of `offered` that the client likes best; among equals the one that compresses best. None where it refuses
/// them all.
fn preferred(headers: &HeaderMap, offered: impl Iterator<Item = Coding>) -> Option<Coding> {
    if !headers.contains_key(ACCEPT_ENCODING) {
        // Who does not say what it can decode gets what needs no decoding.
        return Some(Coding::Identity);
    }
    offered
        .map(|coding| (weight(headers, coding), coding))
        .filter(|((quality, _), _)| *quality > Quality::REFUSED)
        .max()
        .map(|(_, coding)| coding)
}

/// What the client gives to a coding. The second part breaks ties: identity that is not mentioned is not refused, and still
/// less welcome than anything that is mentioned.
fn weight(headers: &HeaderMap, coding: Coding) -> (Quality, Mention) {
    let mut any = None;
    for (token, quality) in elements(headers, &ACCEPT_ENCODING) {
        if coding.is_called(token) {
            return (quality, Mention::Yes);
        }
        if token == "*" {
            any = Some(quality);
        }
    }
    match any {
        Some(quality) => (quality, Mention::Yes),
        None if coding == Coding::Identity => (Quality::LEAST, Mention::No),
        None => (Quality::REFUSED, Mention::No),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Mention {
    No,
    Yes,
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn choice(accepted: &str, compressed: &[Coding]) -> Option<Coding> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_str(accepted).unwrap());
        preferred(&headers, std::iter::once(Coding::Identity).chain(compressed.iter().copied()))
    }

    #[test]
    fn the_best_of_what_both_have() {
        use Coding::{Brotli, Gzip, Identity, Zstd};
        let all = &Coding::COMPRESSED;
        assert_eq!(choice("gzip, deflate, br, zstd", all), Some(Brotli));
        assert_eq!(choice("gzip, zstd;q=0.9", all), Some(Gzip));
        assert_eq!(choice("x-gzip", all), Some(Gzip));
        assert_eq!(choice("GZIP;Q=0.001", all), Some(Gzip));
        assert_eq!(choice("br", &[Gzip]), Some(Identity));
        assert_eq!(choice("identity, gzip;q=0.5", all), Some(Identity));
        assert_eq!(choice("*", &[Zstd]), Some(Zstd));
        assert_eq!(choice("br;q=0, *", all), Some(Zstd));
        assert_eq!(choice("", all), Some(Identity));
        assert_eq!(choice("gzip;q=2", all), Some(Identity));
    }

    #[test]
    fn nothing_that_is_refused() {
        assert_eq!(choice("identity;q=0", &[]), None);
        assert_eq!(choice("*;q=0", &Coding::COMPRESSED), None);
        assert_eq!(choice("identity;q=0, gzip", &[Coding::Gzip]), Some(Coding::Gzip));
        assert_eq!(choice("gzip;q=0.0", &[Coding::Gzip]), Some(Coding::Identity));
    }
}
