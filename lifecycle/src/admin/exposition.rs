//! `/metrics` in the format that the scraper asks for.
//!
//! The library writes OpenMetrics 1.0. Who does not accept that gets Prometheus' text format 0.0.4, in which a counter's
//! `# TYPE` and `# HELP` carry the sample's whole name (`…_total`), and `# UNIT` and `# EOF` do not exist.

use hyper::header::HeaderMap;

use crate::quality;

const OPEN_METRICS: &str = "application/openmetrics-text";

/// A format of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    OpenMetrics,
    Text,
}

impl Format {
    /// The format for the `Accept` fields of a scraper (RFC 9110 section 12.5.1): OpenMetrics where a scraper names it, and does
    /// not prefer text.
    pub(super) fn negotiate(headers: &HeaderMap) -> Self {
        let quality = |media_type| quality::of_media_type(headers, media_type);
        if quality::names_media_type(headers, OPEN_METRICS) && quality(OPEN_METRICS) >= quality("text/plain")
        {
            Self::OpenMetrics
        } else {
            Self::Text
        }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// Turns what the library wrote into this format.
    pub(super) fn write(self, open_metrics: String) -> String {
        match self {
            Self::OpenMetrics => open_metrics,
            Self::Text => to_text(&open_metrics),
        }
    }
}

fn to_text(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len() + open_metrics.len() / 8);
    let mut lines = open_metrics.lines().peekable();
    while let Some(line) = lines.next() {
        // `# HELP name …` comes before `# TYPE name kind`, and says nothing of the kind.
        let mut help = None;
        let mut line = line;
        if line.starts_with("# HELP ") && lines.peek().is_some_and(|next| next.starts_with("# TYPE ")) {
            help = Some(line);
            line = lines.next().unwrap_or_default();
        }
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                other => ("", other),
            };
            if let Some(said) = help.and_then(|help| help.strip_prefix("# HELP ")?.strip_prefix(name)) {
                push(&mut text, &["# HELP ", name, suffix, said]);
            }
            push(&mut text, &["# TYPE ", name, suffix, " ", kind]);
        } else if !line.starts_with("# UNIT ") && line != "# EOF" {
            push(&mut text, &[line]);
        }
    }
    text
}

fn push(text: &mut String, parts: &[&str]) {
    for part in parts {
        text.push_str(part);
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use hyper::header::{ACCEPT, HeaderValue};

    use super::*;

    fn negotiate(lines: &[&'static str]) -> Format {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(ACCEPT, HeaderValue::from_static(line));
        }
        Format::negotiate(&headers)
    }

    #[test]
    fn open_metrics_for_who_accepts_it_and_text_for_all_others() {
        let open_metrics = "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4";
        let text = "text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        assert_eq!(negotiate(&[open_metrics, text]), Format::OpenMetrics);
        for lines in [
            &[][..],
            &["*/*"],
            &["text/plain"],
            &["application/openmetrics-text;q=0, text/plain"],
            &["application/openmetrics-text;Q=0, text/plain"],
            &["application/openmetrics-text ; q = 0.0"],
            &["application/openmetrics-text;q=0.5", "text/plain"],
        ] {
            assert_eq!(negotiate(lines), Format::Text, "{lines:?}");
        }
    }

    #[test]
    fn the_text_format_names_what_its_samples_are_called() {
        let open_metrics = "# HELP a_build What is running.\n# TYPE a_build info\na_build_info{version=\"1\"} 1\n\
             # HELP a_syncs Syncs.\n# TYPE a_syncs counter\na_syncs_total 3\n\
             # HELP a_free_bytes Free.\n# TYPE a_free_bytes gauge\n# UNIT a_free_bytes bytes\na_free_bytes 7\n# EOF\n";
        assert_eq!(
            to_text(open_metrics),
            "# HELP a_build_info What is running.\n# TYPE a_build_info gauge\na_build_info{version=\"1\"} 1\n\
             # HELP a_syncs_total Syncs.\n# TYPE a_syncs_total counter\na_syncs_total 3\n\
             # HELP a_free_bytes Free.\n# TYPE a_free_bytes gauge\na_free_bytes 7\n"
        );
    }
}
