//! Which sinks there are, and how they are written.

use std::path::PathBuf;
use std::str::FromStr;

use reqwest::Url;

/// One `--sink`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SinkUrl {
    /// `stdout:`
    Stdout,
    /// `file:/path`
    File(PathBuf),
    /// `ndjson+http://…` and `ndjson+https://…`, without the `ndjson+`.
    Ndjson(Url),
}

impl SinkUrl {
    /// As it may be shown: without user, password, query and fragment, any of which may be a secret.
    pub fn name(&self) -> String {
        match self {
            Self::Stdout => "stdout:".to_owned(),
            Self::File(path) => format!("file:{}", path.display()),
            Self::Ndjson(url) => {
                let host = url.host_str().unwrap_or_default();
                let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
                format!("ndjson+{}://{host}{port}{}", url.scheme(), url.path())
            }
        }
    }
}

impl FromStr for SinkUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const KNOWN: &str =
            "sinks are stdout:, file:/PATH, ndjson+http://HOST/PATH and ndjson+https://HOST/PATH";
        if text == "stdout:" {
            return Ok(Self::Stdout);
        }
        if let Some(path) = text.strip_prefix("file:") {
            // `file:/path` and `file:///path` are the same in an URL.
            let path = path.strip_prefix("//").unwrap_or(path);
            let usable = path.starts_with('/') && !path.ends_with('/');
            return usable
                .then(|| Self::File(path.into()))
                .ok_or_else(|| format!("a file sink needs a whole path; {KNOWN}"));
        }
        let Some(url) = text.strip_prefix("ndjson+") else {
            return Err(format!("no sink has this scheme; {KNOWN}"));
        };
        let url: Url = url.parse().map_err(|error| format!("{error}; {KNOWN}"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(format!("no sink has this scheme; {KNOWN}"));
        }
        Ok(Self::Ndjson(url))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_gives_away_no_secret() {
        let url: SinkUrl = "ndjson+https://user:pass@logs.example:8443/in?token=x#y".parse().unwrap();
        assert_eq!(url.name(), "ndjson+https://logs.example:8443/in");
        assert_eq!("file:///a/b".parse::<SinkUrl>().unwrap().name(), "file:/a/b");
        assert_eq!("stdout:".parse::<SinkUrl>().unwrap().name(), "stdout:");
    }

    #[test]
    fn an_unknown_scheme_is_told_the_known_ones() {
        for text in [
            "kafka://x",
            "http://x/",
            "ndjson+ftp://x/",
            "ndjson+http://",
            "stdout",
            "file:x",
            "file:/x/",
            "",
        ] {
            let error = text.parse::<SinkUrl>().unwrap_err();
            assert!(error.contains("stdout:") && error.contains("ndjson+https://"), "{error}");
        }
    }
}
