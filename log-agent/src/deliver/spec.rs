//! What the command line says of single sinks: `--sink NAME=URL`, and flags that are for one sink (`NAME=VALUE`) or for all.

use std::collections::HashSet;
use std::str::FromStr;

use super::compress::Compression;
use super::url::SinkUrl;

/// One `--sink`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SinkSpec {
    name: Option<String>,
    pub(crate) url: SinkUrl,
}

impl SinkSpec {
    /// As it is written in logs, metrics and the checkpoint: the name that it was given, or else its URL without credentials.
    pub(crate) fn name(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.url.name())
    }

    /// Checks what single flags cannot: an error is a sentence for the user.
    pub(crate) fn validate(sinks: &[Self], compression: Compression) -> Result<(), String> {
        let mut names = HashSet::new();
        for spec in sinks {
            let name = spec.name();
            if compression == Compression::Zstd && matches!(spec.url, SinkUrl::Forward(_)) {
                return Err(format!("--compression zstd is not in the protocol of --sink {name}; gzip is"));
            }
            if !names.insert(name.clone()) {
                return Err(format!(
                    "--sink {name} is given twice; each sink needs a URL or a name of its own"
                ));
            }
        }
        Ok(())
    }
}

impl FromStr for SinkSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, url) = named(text);
        Ok(Self { name: name.map(str::to_owned), url: url.parse()? })
    }
}

/// What one `--sink` says: a sink, or several with commas between them.
#[derive(Debug, Clone)]
pub(crate) struct SinkList(Vec<SinkSpec>);

impl SinkList {
    /// The sinks of all of these.
    pub(crate) fn sinks(lists: &[Self]) -> Vec<SinkSpec> {
        lists.iter().flat_map(|list| &list.0).cloned().collect()
    }
}

impl FromStr for SinkList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut sinks: Vec<String> = Vec::new();
        for piece in text.split(',') {
            match sinks.last_mut() {
                // A URL may have commas of its own.
                Some(last) if !SinkUrl::has_scheme(named(piece).1) => {
                    last.push(',');
                    last.push_str(piece);
                }
                _ => sinks.push(piece.to_owned()),
            }
        }
        sinks.iter().map(|sink| sink.parse()).collect::<Result<_, _>>().map(Self)
    }
}

/// The value of a flag that is for one sink, or for all those without a value of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ForSink<T> {
    /// Which; none for all.
    pub(crate) sink: Option<String>,
    pub(crate) value: T,
}

impl<T: FromStr<Err: std::fmt::Display>> FromStr for ForSink<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (sink, value) = named(text);
        let value = value.parse().map_err(|error: T::Err| error.to_string())?;
        Ok(Self { sink: sink.map(str::to_owned), value })
    }
}

/// The value for a sink: its own, else that for all.
pub(crate) fn for_sink<'a, T>(values: &'a [ForSink<T>], sink: &str) -> Option<&'a T> {
    let own = values.iter().find(|value| value.sink.as_deref() == Some(sink));
    own.or_else(|| values.iter().find(|value| value.sink.is_none())).map(|value| &value.value)
}

/// A name is letters, digits, `-`, `_` and `.`, so that neither a URL nor a path is taken for one.
fn named(text: &str) -> (Option<&str>, &str) {
    let is_name = |name: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        !name.is_empty() && name.bytes().all(plain)
    };
    match text.split_once('=') {
        Some((name, value)) if is_name(name) => (Some(name), value),
        _ => (None, text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sink_may_have_a_name_and_a_url_may_have_an_equals_sign() {
        let name = |text: &str| text.parse::<SinkSpec>().unwrap().name();
        assert_eq!(name("loki=otlp+http://h/otlp?a=b"), "loki");
        assert_eq!(name("otlp+http://h/otlp?a=b"), "otlp+http://h/otlp");
        assert_eq!(name("file:/a=b"), "file:/a=b");
        assert!("a b=stdout:".parse::<SinkSpec>().is_err());
    }

    #[test]
    fn a_comma_separates_sinks_only_where_another_one_begins() {
        let names = |text: &str| -> Result<Vec<String>, String> {
            Ok(text.parse::<SinkList>()?.0.iter().map(SinkSpec::name).collect())
        };
        assert_eq!(names("ndjson+http://h/a,b?c=d,e=f,g").unwrap(), ["ndjson+http://h/a,b"]);
        let several = "stdout:,file:/a,b,raw+file:/c,x=otlp+http://h?a=b,c,forward://h";
        let expected = ["stdout:", "file:/a,b", "raw+file:/c", "x", "forward://h:24224/log-agent"];
        assert_eq!(names(several).unwrap(), expected);
        for slip in ["kafka://h", "stdout", "x=stdout", "raw+stdout", "forward:h", "otlp+h"] {
            assert!(names(&format!("file:/a,{slip}")).is_err(), "{slip} is no part of the name before it");
        }
        assert!(names("stdout:,").is_err());
    }

    #[test]
    fn a_value_of_its_own_comes_first() {
        let values: Vec<ForSink<String>> =
            ["/all", "a=/own", "/b=c"].map(|text| text.parse().unwrap()).to_vec();
        assert_eq!(for_sink(&values, "a").unwrap(), "/own");
        assert_eq!(for_sink(&values, "b").unwrap(), "/all");
        assert_eq!(values[2], ForSink { sink: None, value: "/b=c".to_owned() });
        assert_eq!(for_sink(&values[1..2], "b"), None);
    }
}
