//! Preconditions, RFC 9110 section 13: whether a request still wants what it asks for.
//!
//! [`evaluate`] follows section 13.2.2 step by step. It is asked only where the answer would otherwise be 200, and before a
//! range is looked at ([`crate::http::range`] has If-Range).

use http::header::{HeaderMap, HeaderName, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_UNMODIFIED_SINCE};

use crate::content::representation::{ETag, Modified};

/// What the preconditions come to for a GET or HEAD request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Answer as if there were none.
    Proceed,
    /// 304: the client has it already.
    NotModified,
    /// 412: it is not what the client expects.
    Failed,
}

/// Evaluates all preconditions of a GET or HEAD request. Where there is no date, conditions that name one do not count (sections
/// 13.1.3 and 13.1.4).
pub(crate) fn evaluate(headers: &HeaderMap, etag: &ETag, modified: Option<Modified>) -> Verdict {
    // To walk through a request's few names costs less than to look one up.
    if !headers.keys().any(|name| name.as_str().starts_with("if-")) {
        return Verdict::Proceed;
    }
    let dates = |name| date(headers, name).zip(modified);
    // Steps 1 and 2: has it stayed what the client knows?
    if headers.contains_key(IF_MATCH) {
        if !listed(headers, &IF_MATCH, etag, Comparison::Strong) {
            return Verdict::Failed;
        }
    } else if dates(&IF_UNMODIFIED_SINCE).is_some_and(|(date, modified)| modified > date) {
        return Verdict::Failed;
    }
    // Steps 3 and 4: is it new to the client? A date that is no date counts as none (section 13.1.3).
    if headers.contains_key(IF_NONE_MATCH) {
        if listed(headers, &IF_NONE_MATCH, etag, Comparison::Weak) {
            return Verdict::NotModified;
        }
    } else if dates(&IF_MODIFIED_SINCE).is_some_and(|(date, modified)| modified <= date) {
        return Verdict::NotModified;
    }
    Verdict::Proceed
}

/// How two entity tags are compared (RFC 9110 section 8.8.3.2). Ours are always strong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comparison {
    /// A weak tag equals nothing.
    Strong,
    /// Only what stands between the quotes counts.
    Weak,
}

/// Whether one entity tag, as a header has it, equals ours.
pub(crate) fn equals(tag: &[u8], etag: &ETag, comparison: Comparison) -> bool {
    let (weak, quoted) = match tag.strip_prefix(b"W/") {
        Some(quoted) => (true, quoted),
        None => (false, tag),
    };
    let opaque = quoted.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
    opaque == Some(etag.opaque()) && !(weak && comparison == Comparison::Strong)
}

/// Whether a list of entity tags has ours in it, or is `*`.
fn listed(headers: &HeaderMap, name: &HeaderName, etag: &ETag, comparison: Comparison) -> bool {
    headers.get_all(name).iter().any(|value| {
        let value = value.as_bytes().trim_ascii();
        // Mostly it is one tag, the one that the client got here.
        value == b"*"
            || equals(value, etag, comparison)
            || Tags(value).any(|tag| equals(tag, etag, comparison))
    })
}

fn date(headers: &HeaderMap, name: &HeaderName) -> Option<Modified> {
    // Two of them are no date (RFC 9110 section 5.3): the field has a single value.
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    if values.next().is_some() { None } else { Modified::parse(first) }
}

/// The entity tags of a list, each with its `W/` and quotes. A comma may stand inside the quotes.
struct Tags<'a>(&'a [u8]);

impl<'a> Iterator for Tags<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let start = self.0.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b','))?;
        let rest = &self.0[start..];
        let open = if rest.starts_with(b"W/") { 2 } else { 0 };
        if rest.get(open) != Some(&b'"') {
            // Not an entity tag: what follows cannot be trusted either.
            return None;
        }
        let length = rest[open + 1..].iter().position(|byte| *byte == b'"')?;
        let (tag, rest) = rest.split_at(open + 1 + length + 1);
        self.0 = rest;
        Some(tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::digest::Digest;
    use http::HeaderValue;
    use std::time::{Duration, UNIX_EPOCH};

    const OURS: &str = "\"e3b0c44298fc1c149afbf4c8996fb924\"";
    const THEN: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const EARLIER: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const LATER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    fn verdict(headers: &[(HeaderName, &str)]) -> Verdict {
        verdict_on(headers, Some(Modified::at(UNIX_EPOCH + Duration::from_secs(784_111_777))))
    }

    fn verdict_on(headers: &[(HeaderName, &str)], modified: Option<Modified>) -> Verdict {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap()))
            .collect();
        evaluate(&headers, &ETag::of(Digest::of(b"")), modified)
    }

    #[test]
    fn if_none_match_compares_weakly_and_reads_lists() {
        for value in [OURS, "*", &format!("W/{OURS}"), &format!("\"a,b\", W/\"c\" ,{OURS}")] {
            assert_eq!(verdict(&[(IF_NONE_MATCH, value)]), Verdict::NotModified, "{value}");
        }
        for value in ["\"other\"", "e3b0c44298fc1c149afbf4c8996fb924", "", "\"e3b0"] {
            assert_eq!(verdict(&[(IF_NONE_MATCH, value)]), Verdict::Proceed, "{value}");
        }
    }

    #[test]
    fn if_match_compares_strongly() {
        for value in [OURS, "*", &format!("\"a\", {OURS}")] {
            assert_eq!(verdict(&[(IF_MATCH, value)]), Verdict::Proceed, "{value}");
        }
        for value in ["\"other\"", &format!("W/{OURS}"), ""] {
            assert_eq!(verdict(&[(IF_MATCH, value)]), Verdict::Failed, "{value}");
        }
    }

    #[test]
    fn dates_count_to_the_second() {
        assert_eq!(verdict(&[(IF_MODIFIED_SINCE, EARLIER)]), Verdict::Proceed);
        assert_eq!(verdict(&[(IF_MODIFIED_SINCE, THEN)]), Verdict::NotModified);
        assert_eq!(verdict(&[(IF_MODIFIED_SINCE, LATER)]), Verdict::NotModified);
        assert_eq!(verdict(&[(IF_MODIFIED_SINCE, "yesterday")]), Verdict::Proceed);
        assert_eq!(verdict(&[(IF_UNMODIFIED_SINCE, EARLIER)]), Verdict::Failed);
        assert_eq!(verdict(&[(IF_UNMODIFIED_SINCE, THEN)]), Verdict::Proceed);
        assert_eq!(verdict(&[(IF_UNMODIFIED_SINCE, "yesterday")]), Verdict::Proceed);
    }

    #[test]
    fn what_has_no_date_is_not_compared_with_one() {
        for (name, date) in [(IF_MODIFIED_SINCE, LATER), (IF_UNMODIFIED_SINCE, EARLIER)] {
            assert_eq!(verdict_on(&[(name, date)], None), Verdict::Proceed);
        }
    }

    #[test]
    fn a_tag_goes_before_a_date_and_if_match_before_if_none_match() {
        assert_eq!(verdict(&[(IF_NONE_MATCH, "\"other\""), (IF_MODIFIED_SINCE, LATER)]), Verdict::Proceed);
        assert_eq!(verdict(&[(IF_MATCH, OURS), (IF_UNMODIFIED_SINCE, EARLIER)]), Verdict::Proceed);
        assert_eq!(verdict(&[(IF_MATCH, "\"other\""), (IF_NONE_MATCH, OURS)]), Verdict::Failed);
        assert_eq!(verdict(&[(IF_UNMODIFIED_SINCE, EARLIER), (IF_NONE_MATCH, OURS)]), Verdict::Failed);
    }
}
