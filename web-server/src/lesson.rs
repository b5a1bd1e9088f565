//! The endpoints of the lesson's `simpleservice` image, byte for byte, spacing included: whoever follows the lesson sees
//! what the lesson shows.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use lifecycle::exit::{Exit, Failure};

use crate::body::Payload;

/// What the lesson's image was at.
const VERSION: &str = "0.5.0";
/// Where content is served unless told otherwise.
const DEFAULT_LISTEN: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 9876);

/// What the lesson's image takes from its environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lesson {
    version: String,
    /// `/health` takes this long, in milliseconds.
    health_delay: RangeInclusive<u64>,
    /// What `/env` shows, where it was asked for.
    environment: Option<BTreeMap<String, String>>,
}

/// An endpoint of the lesson.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// Who was asked, and by whom.
    Info,
    /// Always healthy, sometimes late.
    Health,
    /// Something that a service might do.
    Endpoint0,
    /// The environment.
    Env,
}

impl Endpoint {
    /// Where they are.
    pub const PATHS: &[&str] = &["/info", "/health", "/endpoint0", "/env"];

    /// The endpoint at a path.
    pub fn at(path: &str) -> Option<Self> {
        match path {
            "/info" => Some(Self::Info),
            "/health" => Some(Self::Health),
            "/endpoint0" => Some(Self::Endpoint0),
            "/env" => Some(Self::Env),
            _ => None,
        }
    }
}

impl Lesson {
    /// Reads the variables `VERSION`, `SIMPLE_SERVICE_VERSION`, `HEALTH_MIN` and `HEALTH_MAX`.
    ///
    /// # Errors
    /// Exit code 64 where a variable does not hold what it should.
    pub fn new(
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
    pub async fn answer(&self, endpoint: Endpoint, host: &str, peer: SocketAddr) -> Response<Payload> {
        let (host, version) = (quoted(host), quoted(&self.version));
        let body = match endpoint {
            Endpoint::Info => {
                let from = quoted(&peer.ip().to_canonical().to_string());
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
                // SECURITY: environments hold secrets, so this one is off unless somebody asks for it.
                None => {
                    return crate::respond::plain(StatusCode::NOT_FOUND, "off: --expose-env turns it on\n");
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

/// Where to listen: what the flag says, or else any address at the port in the variable `PORT0`, or else port 9876.
///
/// # Errors
/// Exit code 64 where `PORT0` is no port.
pub fn listen_addr(
    flag: Option<SocketAddr>,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<SocketAddr, Failure> {
    let mut addr = flag.unwrap_or(DEFAULT_LISTEN);
    if flag.is_none()
        && let Some(port) = variable("PORT0")
    {
        addr.set_port(
            port.parse().map_err(|_| usage(format!("PORT0={port} is no port; give a number up to 65535")))?,
        );
    }
    Ok(addr)
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

    #[test]
    fn port0_moves_the_port_unless_the_flag_says_where() {
        let flag = "127.0.0.1:1".parse().ok();
        assert_eq!(listen_addr(None, lookup(&[])).unwrap().to_string(), "0.0.0.0:9876");
        assert_eq!(listen_addr(None, lookup(&[("PORT0", "80")])).unwrap().to_string(), "0.0.0.0:80");
        assert_eq!(listen_addr(flag, lookup(&[("PORT0", "80")])).unwrap().to_string(), "127.0.0.1:1");
        assert!(listen_addr(None, lookup(&[("PORT0", "http")])).is_err());
    }
}
