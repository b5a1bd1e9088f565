//! The name of a request across all that handle it: the client's own, or one that is made up.

use http::{HeaderMap, HeaderValue};

use crate::content::header_policy::REQUEST_ID;

/// Longest id that is taken over from a client.
const LENGTH_MAX: usize = 128;

/// A request's id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RequestId {
    /// The client has one that is safe to repeat.
    Given(HeaderValue),
    /// It has none: 64 random bits in hexadecimal digits.
    MadeUp([u8; 16]),
}

impl RequestId {
    /// The client's own where it has one that is safe to repeat, or else a random one.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let given = headers.get(&REQUEST_ID).filter(|id| is_safe(id.as_bytes()));
        given.map_or_else(Self::make_up, |id| Self::Given(id.clone()))
    }

    /// A random one.
    pub(crate) fn make_up() -> Self {
        let mut left = fastrand::u64(..);
        Self::MadeUp(std::array::from_fn(|_| {
            left = left.rotate_left(4);
            b"0123456789abcdef"[(left & 0xf) as usize]
        }))
    }

    /// As it is logged.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Given(id) => id.as_bytes(),
            Self::MadeUp(digits) => digits,
        }
    }

    /// As it is sent.
    ///
    /// # Panics
    /// Never: hexadecimal digits are a header value.
    pub(crate) fn header(&self) -> HeaderValue {
        match self {
            Self::Given(id) => id.clone(),
            Self::MadeUp(digits) => {
                HeaderValue::from_bytes(digits).expect("hexadecimal digits are a header value")
            }
        }
    }
}

fn is_safe(id: &[u8]) -> bool {
    !id.is_empty()
        && id.len() <= LENGTH_MAX
        && id.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:+/=".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(given: &'static str) -> RequestId {
        RequestId::of(&HeaderMap::from_iter([(REQUEST_ID, HeaderValue::from_static(given))]))
    }

    #[test]
    fn a_safe_id_is_kept_and_any_other_is_not() {
        assert_eq!(of("a-1_.:+/=Z").as_bytes(), b"a-1_.:+/=Z");
        for unsafe_one in ["", "a b", "a\"b", "a,b"] {
            assert!(matches!(of(unsafe_one), RequestId::MadeUp(_)), "{unsafe_one}");
        }
        let long = HeaderValue::from_bytes(&[b'a'; LENGTH_MAX + 1]).unwrap();
        let long = RequestId::of(&HeaderMap::from_iter([(REQUEST_ID, long)]));
        assert!(matches!(long, RequestId::MadeUp(_)));
    }

    #[test]
    fn made_up_ids_differ_and_are_sent_as_they_are_logged() {
        let (one, other) = (RequestId::make_up(), RequestId::make_up());
        assert_ne!(one, other);
        assert_eq!(one.header().as_bytes(), one.as_bytes());
        assert!(one.as_bytes().iter().all(u8::is_ascii_hexdigit));
    }
}
