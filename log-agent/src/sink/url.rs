//! Which sinks there are, and how they are written.

use std::str::FromStr;

use reqwest::Url;

/// One `--sink`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SinkUrl {
    /// `stdout:`
    Stdout,
    /// `ndjson+http://…` and `ndjson+https://…`, without the `ndjson+`.
    Ndjson(Url),
}

impl SinkUrl {
    /// As it may be shown: without user, password, query and fragment, any of which may be a secret.
    pub fn name(&self) -> String {
        match self {
            Self::Stdout => "stdout:".to_owned(),
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
        const KNOWN: &str = "sinks are stdout:, ndjson+http://HOST/PATH and ndjson+https://HOST/PATH";
        if text == "stdout:" {
            return Ok(Self::Stdout);
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
        assert_eq!("stdout:".parse::<SinkUrl>().unwrap().name(), "stdout:");
    }

    #[test]
    fn an_unknown_scheme_is_told_the_known_ones() {
        for text in ["kafka://x", "http://x/", "ndjson+ftp://x/", "ndjson+http://", "stdout", ""] {
            let error = text.parse::<SinkUrl>().unwrap_err();
            assert!(error.contains("stdout:") && error.contains("ndjson+https://"), "{error}");
        }
    }
}
