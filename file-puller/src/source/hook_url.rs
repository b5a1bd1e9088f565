//! Where to send what others are told or asked: a webhook, or a gate.
//!
//! SECURITY: for many receivers the URL is the secret, so only its origin is ever shown.

use std::fmt;
use std::str::FromStr;

use reqwest::Url;

/// The URL of a webhook or a gate.
#[derive(Clone)]
pub(crate) struct HookUrl(Url);

impl HookUrl {
    pub(crate) fn url(&self) -> &Url {
        &self.0
    }
}

impl FromStr for HookUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let url =
            Url::parse(text).map_err(|error| format!("{error}; write it like https://hooks.example/x"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err("it has to begin with http:// or https://".to_owned());
        }
        Ok(Self(url))
    }
}

impl fmt::Display for HookUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0.origin().ascii_serialization())
    }
}

impl fmt::Debug for HookUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_origin_is_shown() {
        let url: HookUrl = "https://u:secret@hooks.example/secret?secret".parse().unwrap();
        assert_eq!(format!("{url} {url:?}"), "https://hooks.example https://hooks.example");
        assert!("hooks.example/x".parse::<HookUrl>().is_err());
        assert!("ftp://hooks.example/x".parse::<HookUrl>().unwrap_err().contains("http://"));
    }
}
