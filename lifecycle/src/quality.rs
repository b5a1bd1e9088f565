//! Lists with quality values (RFC 9110 section 12.4.2): the one parser for `Accept` and `Accept-Encoding`.

use hyper::header::{ACCEPT, HeaderMap, HeaderName};

/// A quality in thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quality(u16);

impl Quality {
    /// `q=0`: the client refuses it.
    pub const REFUSED: Self = Self(0);
    /// `q=0.001`: the least that is not refused.
    pub const LEAST: Self = Self(1);
    /// `q=1`, which is what an element without a quality has.
    pub const FULL: Self = Self(1000);

    /// `0` to `1` with up to three decimals.
    fn parse(text: &str) -> Option<Self> {
        let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
        if decimals.len() > 3 || !decimals.bytes().all(|digit| digit.is_ascii_digit()) {
            return None;
        }
        let thousandths: u16 = format!("{decimals:0<3}").parse().ok()?;
        match (whole, thousandths) {
            ("0", _) => Some(Self(thousandths)),
            ("1", 0) => Some(Self::FULL),
            _ => None,
        }
    }
}

/// The elements of a list header in the order of the client, each with its quality. An element whose quality is not valid
/// is left out.
pub fn elements<'a>(
    headers: &'a HeaderMap,
    name: &'a HeaderName,
) -> impl Iterator<Item = (&'a str, Quality)> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).filter_map(|element| {
        let mut parts = element.split(';').map(str::trim);
        let token = parts.next().filter(|token| !token.is_empty())?;
        let quality = parts.find_map(|part| {
            let (name, value) = part.split_once('=')?;
            name.trim_end().eq_ignore_ascii_case("q").then(|| value.trim_start())
        });
        Some((token, quality.map_or(Some(Quality::FULL), Quality::parse)?))
    })
}

/// The quality that a client gives to a media type such as `text/html`, by the most specific range that covers it (RFC 9110
/// section 12.5.1). A client that sends no `Accept` takes anything.
pub fn of_media_type(headers: &HeaderMap, media_type: &str) -> Quality {
    if !headers.contains_key(ACCEPT) {
        return Quality::FULL;
    }
    let specificity = |range: &str| {
        let top = media_type.split('/').next().unwrap_or_default();
        if range.eq_ignore_ascii_case(media_type) {
            Some(2)
        } else if range.strip_suffix("/*").is_some_and(|range| range.eq_ignore_ascii_case(top)) {
            Some(1)
        } else {
            (range == "*/*").then_some(0)
        }
    };
    elements(headers, &ACCEPT)
        .filter_map(|(range, quality)| Some((specificity(range)?, quality)))
        .max()
        .map_or(Quality::REFUSED, |(_, quality)| quality)
}

/// Whether a client names this media type itself, and does not refuse it: a browser that navigates names `text/html`, and
/// one that loads a script or an image does not.
pub fn names_media_type(headers: &HeaderMap, media_type: &str) -> bool {
    elements(headers, &ACCEPT)
        .any(|(range, quality)| range.eq_ignore_ascii_case(media_type) && quality > Quality::REFUSED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn accept(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(ACCEPT, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn the_most_specific_range_counts() {
        let of = |value: &str, media_type: &str| of_media_type(&accept(value), media_type).0;
        assert_eq!(of("text/*;q=0.3, text/html;q=0.7, */*;q=0.5", "text/html"), 700);
        assert_eq!(of("text/*;q=0.3, text/html;q=0.7, */*;q=0.5", "text/plain"), 300);
        assert_eq!(of("text/*;q=0.3, text/html;q=0.7, */*;q=0.5", "image/png"), 500);
        assert_eq!(of("application/json", "text/html"), 0);
        assert_eq!(of("*/*, text/html;q=0", "text/html"), 0);
        assert_eq!(of("text/html ; Q = 0.25", "text/html"), 250);
        assert_eq!(of("text/html;q=7", "text/html"), 0);
        assert_eq!(of_media_type(&HeaderMap::new(), "text/html"), Quality::FULL);
    }

    #[test]
    fn a_range_does_not_name_a_type() {
        assert!(names_media_type(&accept("image/webp, text/html;q=0.1"), "text/html"));
        for other in ["*/*", "text/*", "text/html;q=0", ""] {
            assert!(!names_media_type(&accept(other), "text/html"), "{other}");
        }
    }
}
