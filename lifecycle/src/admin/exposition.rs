//! `/metrics` in the format that the scraper asks for.
//!
//! The library writes OpenMetrics 1.0. Who does not accept that gets Prometheus' text format 0.0.4, in which a counter's
//! `# TYPE` and `# HELP` carry the sample's whole name (`…_total`), and `# UNIT` and `# EOF` do not exist.

use hyper::header::HeaderValue;

/// A format of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    OpenMetrics,
    Text,
}

impl Format {
    /// The format for an `Accept` field (RFC 9110 section 12.5.1): OpenMetrics for who names it and prefers it.
    pub(super) fn negotiate(accept: Option<&HeaderValue>) -> Self {
        let accept = accept.and_then(|accept| accept.to_str().ok()).unwrap_or_default();
        let quality = |media_type: &str| {
            accept
                .split(',')
                .filter(|range| {
                    range.split(';').next().is_some_and(|name| name.trim().eq_ignore_ascii_case(media_type))
                })
                .map(|range| {
                    let q = range.split(';').find_map(|parameter| parameter.trim().strip_prefix("q="));
                    q.map_or(1.0, |q| q.trim().parse::<f32>().unwrap_or(0.0))
                })
                .fold(0.0, f32::max)
        };
        let open_metrics = quality("application/openmetrics-text");
        if open_metrics > 0.0 && open_metrics >= quality("text/plain") {
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
    use super::*;

    fn negotiate(accept: &str) -> Format {
        Format::negotiate(Some(&HeaderValue::from_str(accept).unwrap()))
    }

    #[test]
    fn open_metrics_for_who_accepts_it_and_text_for_all_others() {
        assert_eq!(Format::negotiate(None), Format::Text);
        assert_eq!(negotiate("*/*"), Format::Text);
        assert_eq!(negotiate("text/plain"), Format::Text);
        assert_eq!(negotiate("application/openmetrics-text;q=0, text/plain"), Format::Text);
        assert_eq!(
            negotiate(
                "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,\
                 text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
            ),
            Format::OpenMetrics
        );
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
