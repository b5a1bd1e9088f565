//! Accept-Encoding: which of a file's precompressed siblings a client gets (RFC 9110 section 12.5.3).

use http::header::{ACCEPT_ENCODING, HeaderMap};

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
        .filter(|(weight, _)| *weight > Weight::REFUSED)
        .max()
        .map(|(_, coding)| coding)
}

/// A quality in thousandths, with room below the least for what is merely not refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Weight(u16);

impl Weight {
    const REFUSED: Self = Self(0);
    const UNMENTIONED: Self = Self(1);

    /// `0` to `1` with up to three decimals (RFC 9110 section 12.4.2).
    fn parse(text: &str) -> Option<Self> {
        let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
        if decimals.len() > 3 || !decimals.bytes().all(|digit| digit.is_ascii_digit()) {
            return None;
        }
        let thousandths: u16 = format!("{decimals:0<3}").parse().ok()?;
        match (whole, thousandths) {
            ("0", 0) => Some(Self::REFUSED),
            ("0", _) => Some(Self(thousandths + 1)),
            ("1", 0) => Some(Self(1001)),
            _ => None,
        }
    }
}

fn weight(headers: &HeaderMap, coding: Coding) -> Weight {
    let mut any = None;
    for value in headers.get_all(ACCEPT_ENCODING) {
        for element in value.to_str().unwrap_or_default().split(',') {
            let mut parts = element.split(';').map(str::trim);
            let token = parts.next().unwrap_or_default();
            let quality = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
            // What makes no sense is as if it were not there.
            let Some(weight) = Weight::parse(quality.unwrap_or("1")) else { continue };
            if coding.is_called(token) {
                return weight;
            }
            if token == "*" {
                any = Some(weight);
            }
        }
    }
    any.unwrap_or(if coding == Coding::Identity { Weight::UNMENTIONED } else { Weight::REFUSED })
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
