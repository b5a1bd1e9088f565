//! Which sinks there are, and how they are written.

use std::path::PathBuf;
use std::str::FromStr;

use reqwest::Url;

use crate::record::chunk::ChunkMode;

/// One `--sink`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SinkUrl {
    /// `stdout:` and `raw+stdout:`
    Stdout(ChunkMode),
    /// `file:/path` and `raw+file:/path`
    File(ChunkMode, PathBuf),
    /// `ndjson+http://…` and `ndjson+https://…`, without the `ndjson+`.
    Ndjson(Url),
    /// `otlp+http://…` and `otlp+https://…`, without the `otlp+`.
    Otlp(Url),
    /// `forward://…` and `forward+tls://…`
    Forward(ForwardUrl),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ForwardUrl {
    /// As a certificate names it; an IPv6 address without brackets.
    pub(crate) host: String,
    /// 24224, unless the URL says otherwise.
    pub(crate) port: u16,
    /// What receivers route by: the URL's path.
    pub(crate) tag: String,
    pub(crate) tls: bool,
}

const FORWARD_PORT: u16 = 24224;
/// Of records whose URL names no tag.
const FORWARD_TAG: &str = "log-agent";

impl ForwardUrl {
    pub(super) fn name(&self) -> String {
        let scheme = if self.tls { "forward+tls" } else { "forward" };
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        format!("{scheme}://{host}:{}/{}", self.port, self.tag)
    }

    fn parse(text: &str) -> Result<Option<Self>, String> {
        let (tls, rest) = match (text.strip_prefix("forward+tls://"), text.strip_prefix("forward://")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => return Ok(None),
        };
        // Of a scheme that the standard knows, so that hosts are read as they are in any other URL.
        let url: Url = format!("http://{rest}").parse().map_err(|error| format!("{error}"))?;
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        if !url.username().is_empty() || url.query().is_some() || url.fragment().is_some() {
            return Err("a forward sink is written forward://HOST:PORT/TAG".to_owned());
        }
        // The scheme's own port is not told from none; no receiver listens for Forward on 80.
        let port = url.port().unwrap_or(FORWARD_PORT);
        let tag = match url.path().trim_matches('/') {
            "" => FORWARD_TAG.to_owned(),
            tag => tag.to_owned(),
        };
        Ok(Some(Self { host, port, tag, tls }))
    }
}

impl SinkUrl {
    /// Whether a text begins as a sink does, of whatever scheme, or as what is meant to be one: `stdout` without its colon is refused,
    /// and no part of the file name before it.
    pub(super) fn has_scheme(text: &str) -> bool {
        let begins = ["raw+", "stdout:", "file:", "ndjson+", "otlp+", "forward+", "forward:"];
        let is_meant = text == "stdout" || begins.iter().any(|scheme| text.starts_with(scheme));
        let is_scheme =
            |scheme: &str| scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'+');
        is_meant || text.split_once("://").is_some_and(|(scheme, _)| is_scheme(scheme))
    }

    /// Whether the URL itself says who the agent is.
    pub(super) fn has_user(&self) -> bool {
        match self {
            Self::Ndjson(url) | Self::Otlp(url) => !url.username().is_empty() || url.password().is_some(),
            Self::Stdout(_) | Self::File(..) | Self::Forward(_) => false,
        }
    }

    /// Whether records are sent, or the lines alone.
    pub(super) fn mode(&self) -> ChunkMode {
        match self {
            Self::Stdout(mode) | Self::File(mode, _) => *mode,
            Self::Ndjson(_) | Self::Otlp(_) | Self::Forward(_) => ChunkMode::Records,
        }
    }

    /// As it may be shown: without user, password, query and fragment, any of which may be a secret.
    pub(crate) fn name(&self) -> String {
        let prefix = if self.mode() == ChunkMode::Raw { "raw+" } else { "" };
        match self {
            Self::Stdout(_) => format!("{prefix}stdout:"),
            Self::File(_, path) => format!("{prefix}file:{}", path.display()),
            Self::Ndjson(url) => format!("ndjson+{}", without_secrets(url)),
            Self::Otlp(url) => format!("otlp+{}", without_secrets(url)),
            Self::Forward(url) => url.name(),
        }
    }
}

fn without_secrets(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{host}{port}{}", url.scheme(), url.path())
}

impl FromStr for SinkUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const KNOWN: &str = "sinks are (raw+)stdout:, (raw+)file:/PATH, ndjson+http(s)://HOST/PATH, otlp+http(s)://HOST and forward(+tls)://HOST:PORT/TAG";
        let (mode, local) = match text.strip_prefix("raw+") {
            Some(rest) => (ChunkMode::Raw, rest),
            None => (ChunkMode::Records, text),
        };
        if local == "stdout:" {
            return Ok(Self::Stdout(mode));
        }
        if let Some(path) = local.strip_prefix("file:") {
            // `file:/path` and `file:///path` are the same in an URL.
            let path = path.strip_prefix("//").unwrap_or(path);
            let usable = path.starts_with('/') && !path.ends_with('/');
            return usable
                .then(|| Self::File(mode, path.into()))
                .ok_or_else(|| format!("a file sink needs a whole path; {KNOWN}"));
        }
        let told = |error: String| format!("{error}; {KNOWN}");
        if let Some(url) = ForwardUrl::parse(text).map_err(told)? {
            return Ok(Self::Forward(url));
        }
        let (sink, url): (fn(Url) -> Self, _) = match text.split_once('+') {
            Some(("ndjson", url)) => (Self::Ndjson, url),
            Some(("otlp", url)) => (Self::Otlp, url),
            _ => {
                let scheme = text.split_once("://").map(|(scheme, _)| scheme);
                return Err(match scheme.filter(|scheme| matches!(*scheme, "http" | "https")) {
                    Some(http) => format!(
                        "{http} alone does not say what the receiver understands: write ndjson+{http}://… or otlp+{http}://…; {KNOWN}"
                    ),
                    None => format!("no sink has this scheme; {KNOWN}"),
                });
            }
        };
        let url: Url = url.parse().map_err(|error| told(format!("{error}")))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(format!("no sink has this scheme; {KNOWN}"));
        }
        Ok(sink(url))
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
        assert_eq!("otlp+http://k:s@c:4318".parse::<SinkUrl>().unwrap().name(), "otlp+http://c:4318/");
        assert_eq!("raw+file:/a".parse::<SinkUrl>().unwrap().name(), "raw+file:/a");
        assert_eq!("stdout:".parse::<SinkUrl>().unwrap().name(), "stdout:");
    }

    #[test]
    fn forward_has_a_port_and_a_tag_by_itself() {
        let name = |text: &str| text.parse::<SinkUrl>().unwrap().name();
        assert_eq!(name("forward://h"), "forward://h:24224/log-agent");
        assert_eq!(name("forward+tls://[::1]:5/web.access"), "forward+tls://[::1]:5/web.access");
    }

    #[test]
    fn http_is_told_what_it_lacks() {
        for scheme in ["http", "https"] {
            let error = format!("{scheme}://user:secret@x/").parse::<SinkUrl>().unwrap_err();
            let written = [format!("ndjson+{scheme}://…"), format!("otlp+{scheme}://…")];
            assert!(written.iter().all(|one| error.contains(one)) && !error.contains("secret"), "{error}");
        }
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
            "forward:x",
            "forward://",
            "forward://user@host",
            "",
        ] {
            let error = text.parse::<SinkUrl>().unwrap_err();
            assert!(error.contains("stdout:") && error.contains("forward(+tls)://"), "{error}");
        }
    }
}
