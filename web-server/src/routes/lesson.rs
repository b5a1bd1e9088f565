//! The endpoints of the lesson's `simpleservice` image, byte for byte, spacing included: a student of the lesson sees
//! what the lesson shows.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use lifecycle::exit::{Exit, Failure};

use crate::content::path::ContentPath;
use crate::http::body::Payload;
use crate::http::response::plain;

/// What the lesson's image was at.
const VERSION: &str = "0.5.0";
/// What the lesson's image takes from its environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lesson {
    version: String,
    /// `/health` takes this long, in milliseconds.
    health_delay: RangeInclusive<u64>,
    /// What `/env` shows, where it was asked for.
    environment: Option<BTreeMap<String, String>>,
}

/// An endpoint of the lesson.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// The host that was asked, and the client.
    Info,
    /// Always healthy, sometimes late.
    Health,
    /// Something that a service might do.
    Endpoint0,
    /// The environment.
    Env,
}

impl Endpoint {
    /// All of them, and where they are.
    pub(crate) const ALL: [(&str, Self); 4] = [
        ("/info", Self::Info),
        ("/health", Self::Health),
        ("/endpoint0", Self::Endpoint0),
        ("/env", Self::Env),
    ];

    /// The endpoint at a path.
    pub(crate) fn at(path: &ContentPath) -> Option<Self> {
        Self::ALL.into_iter().find(|(known, _)| path.is_at(known)).map(|(_, endpoint)| endpoint)
    }
}

impl Lesson {
    /// Reads the variables `VERSION`, `SIMPLE_SERVICE_VERSION`, `HEALTH_MIN` and `HEALTH_MAX`.
    ///
    /// # Errors
    /// Exit code 64 where a variable does not hold what it should.
    pub(crate) fn new(
        version: Option<String>,
        expose_env: bool,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, Failure> {
        let version = version.or_else(|| variable("VERSION")).or_else(|| variable("SIMPLE_SERVICE_VERSION"));
        let least = milliseconds("HEALTH_MIN", &variable)?.unwrap_or(0);
        let most = milliseconds("HEALTH_MAX", &variable)?.unwrap_or(least);
        if most < least {
            return Err(usage(format!("HEALTH_MAX={most} is less than HEALTH_MIN={least}; swap them")));
        }
        let environment = expose_env.then(|| {
            std::env::vars_os()
                .map(|(name, value)| {
                    (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned())
                })
                .collect()
        });
        Ok(Self {
            version: version.unwrap_or_else(|| VERSION.to_owned()),
            health_delay: least..=most,
            environment,
        })
    }

    /// Answers a GET request.
    pub(crate) async fn answer(&self, endpoint: Endpoint, host: &str, client: IpAddr) -> Response<Payload> {
        let (host, version) = (quoted(host), quoted(&self.version));
        let body = match endpoint {
            Endpoint::Info => {
                let from = quoted(&client.to_string());
                format!(r#"{{"host": {host}, "version": {version}, "from": {from}}}"#)
            }
            Endpoint::Health => {
                // This request's own time: no other waits for it.
                let delay = fastrand::u64(self.health_delay.clone());
                if delay > 0 {
                    tokio::time::sleep(Duration::from_millis(delay)).await;
                }
                r#"{"healthy": true}"#.to_owned()
            }
            Endpoint::Endpoint0 => {
                format!(r#"{{"host": {host}, "version": {version}, "result": "all is well"}}"#)
            }
            Endpoint::Env => match &self.environment {
                Some(environment) => {
                    let variables: Vec<_> = environment
                        .iter()
                        .map(|(name, value)| format!("{}: {}", quoted(name), quoted(value)))
                        .collect();
                    format!(r#"{{"version": {version}, "env": {{{}}}}}"#, variables.join(", "))
                }
                // SECURITY: environments hold secrets, so this one is off by default.
                None => {
                    return plain(StatusCode::NOT_FOUND, "off: --expose-env turns it on\n");
                }
            },
        };
        let mut response = Response::new(Payload::Held(body.into()));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

fn milliseconds(name: &str, variable: &impl Fn(&str) -> Option<String>) -> Result<Option<u64>, Failure> {
    let parse = |text: String| {
        text.parse()
            .map_err(|_| usage(format!("{name}={text} is no number of milliseconds; write it like 500")))
    };
    variable(name).map(parse).transpose()
}

fn usage(reason: String) -> Failure {
    Failure::new(Exit::Usage, reason)
}

/// A JSON string, in quotes: a Host header may hold quotes of its own.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(variables: &[(&str, &str)]) -> Result<Lesson, Failure> {
        Lesson::new(None, false, lookup(variables))
    }

    fn lookup(variables: &[(&str, &str)]) -> impl Fn(&str) -> Option<String> {
        |name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    }

    #[test]
    fn the_version_is_the_first_that_is_given() {
        assert_eq!(from(&[]).unwrap().version, "0.5.0");
        assert_eq!(from(&[("SIMPLE_SERVICE_VERSION", "0.9")]).unwrap().version, "0.9");
        assert_eq!(from(&[("SIMPLE_SERVICE_VERSION", "0.9"), ("VERSION", "1")]).unwrap().version, "1");
    }

    #[test]
    fn delays_are_numbers() {
        // As text, "1000" would come before "500".
        let lesson = from(&[("HEALTH_MIN", "500"), ("HEALTH_MAX", "1000")]).unwrap();
        assert_eq!(lesson.health_delay, 500..=1000);
        assert_eq!(from(&[("HEALTH_MIN", "5")]).unwrap().health_delay, 5..=5);
        assert_eq!(from(&[("HEALTH_MAX", "5")]).unwrap().health_delay, 0..=5);
        for wrong in
            [[("HEALTH_MIN", "soon"), ("HEALTH_MAX", "9")], [("HEALTH_MIN", "9"), ("HEALTH_MAX", "5")]]
        {
            assert_eq!(from(&wrong).unwrap_err().exit, Exit::Usage);
        }
    }
}
