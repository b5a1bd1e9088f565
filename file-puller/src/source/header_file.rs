//! Headers that a source wants of its own, from `--header-file`: one `Name: value` a line, as `curl --header @FILE` reads it.
//!
//! SECURITY: such a header is often a secret (GitLab's `PRIVATE-TOKEN`). So all of them are treated as one: read again at each
//! sync, marked as sensitive, sent to the origin of `--source` alone, and shown nowhere.

use std::fs;
use std::path::PathBuf;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::credentials::CredentialError;

/// What a request says of itself is the puller's to say: what a server makes of another value would not be noticed.
const RESERVED: [HeaderName; 15] = [
    header::ACCEPT_ENCODING,
    header::CACHE_CONTROL,
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::EXPECT,
    header::HOST,
    header::IF_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_NONE_MATCH,
    header::IF_RANGE,
    header::IF_UNMODIFIED_SINCE,
    header::RANGE,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Reads the files as they are now.
pub(crate) fn read(files: &[PathBuf]) -> Result<HeaderMap, CredentialError> {
    let mut headers = HeaderMap::new();
    for path in files {
        let text = fs::read(path).map_err(CredentialError::unreadable(path))?;
        let before = headers.len();
        for line in text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii) {
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            let (name, value) = parse(line).map_err(|why| CredentialError::malformed(path, why))?;
            headers.append(name, value);
        }
        if headers.len() == before {
            return Err(CredentialError::malformed(path, "it has no header"));
        }
    }
    Ok(headers)
}

fn parse(line: &[u8]) -> Result<(HeaderName, HeaderValue), &'static str> {
    let colon = line.iter().position(|byte| *byte == b':').ok_or("a line is not `Name: value`")?;
    let (name, value) = line.split_at(colon);
    let name = HeaderName::from_bytes(name).map_err(|_| "a line does not begin with the name of a header")?;
    if RESERVED.contains(&name) {
        return Err("it sets a header that the puller sets itself, such as Host, Range or If-None-Match");
    }
    let mut value = HeaderValue::from_bytes(value[1..].trim_ascii())
        .map_err(|_| "a value has a character that no header may have")?;
    if value.is_empty() {
        return Err("a header has no value");
    }
    value.set_sensitive(true);
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<HeaderMap, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        read(&[file.path().to_owned()]).map_err(|error| error.to_string())
    }

    #[test]
    fn one_header_a_line() {
        let headers =
            read_text("# GitLab\r\nPRIVATE-TOKEN:  abc:def \r\n\nAccept: application/json").unwrap();
        assert_eq!(headers.len(), 2);
        assert_eq!(headers["private-token"], "abc:def");
        assert_eq!(headers["accept"], "application/json");
        assert!(headers.values().all(HeaderValue::is_sensitive));
        assert!(!format!("{headers:?}").contains("abc"), "{headers:?}");
    }

    #[test]
    fn what_cannot_be_sent_is_refused_and_not_shown() {
        for (text, why) in [
            ("", "no header"),
            ("# a comment\n", "no header"),
            ("secret", "`Name: value`"),
            ("se cret: x", "name of a header"),
            ("X-Secret: a\u{7f}b", "character"),
            ("X-Secret:", "no value"),
            ("range: bytes=0-1", "sets itself"),
            ("HOST: secret", "sets itself"),
        ] {
            let error = read_text(text).unwrap_err();
            assert!(error.contains(why) && !error.contains("secret"), "{text}: {error}");
        }
        assert!(read(&["/no/such".into()]).is_err());
    }
}
