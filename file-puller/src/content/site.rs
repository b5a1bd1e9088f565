//! The name of a site, to which a signature can be bound.

use std::fmt;

use lifecycle::escape::{escaped, is_unsafe};

/// What a publisher with one key for several sites calls one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Site(Box<str>);

impl Site {
    /// The longest name, in bytes.
    const MAX_BYTES: usize = 255;

    /// Checks a name; for clap's `value_parser`, too.
    pub(crate) fn parse(name: &str) -> Result<Self, String> {
        if name.is_empty() {
            return Err("it is empty".to_owned());
        }
        if name.len() > Self::MAX_BYTES {
            return Err(format!("it is longer than {} bytes", Self::MAX_BYTES));
        }
        if name.contains(is_unsafe) {
            return Err(format!("\"{}\" has a control character", escaped(name)));
        }
        Ok(Self(name.into()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Site {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_can_be_printed() {
        assert_eq!(Site::parse("shop.example/café").unwrap().as_str(), "shop.example/café");
        for wrong in ["", "a\nb", "a\u{9b}", "a\u{202e}b", &"a".repeat(256)] {
            let error = Site::parse(wrong).unwrap_err();
            assert!(!error.contains(['\n', '\u{9b}', '\u{202e}']), "{error:?}");
        }
    }
}
