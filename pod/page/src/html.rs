//! A snapshot as an HTML page of its own: for browsers without JavaScript, and for a Pod that has no content yet.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use lifecycle::Ignore as _;

use crate::snapshot::{Container, Snapshot, State, now};

/// What such a page may do: look like something, and nothing else.
pub(crate) const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

const STYLE: &str = "\
:root{color-scheme:light dark;--line:#8886}\
body{max-width:46rem;margin:0 auto;padding:1rem;font:1rem/1.5 system-ui,sans-serif;overflow-wrap:anywhere}\
h1{font-size:1.4rem;line-height:1.2}h2{font-size:1.1rem;margin:1.5rem 0 .25rem}\
table{border-collapse:collapse;width:100%}\
th,td{text-align:left;vertical-align:top;padding:.35rem .75rem .35rem 0;border-top:1px solid var(--line)}\
th{width:11rem;font-weight:600}td{font-variant-numeric:tabular-nums}";

/// Events of the kubelet, at most.
const EVENTS: usize = 10;

/// The page.
pub(crate) fn page(snapshot: &Snapshot) -> String {
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>This Pod, as it was a moment ago</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n\
         <h1>This Pod, as it was a moment ago</h1>\n\
         <p>Seen at {}. <a href=\"/pod\">Look again</a></p>\n",
        escaped(&now())
    );
    let some = |value: &Option<String>| value.clone().unwrap_or_else(|| "not known".to_owned());
    for container in &snapshot.containers {
        section(&mut page, container.name, &described(container));
    }
    if let Some(release) = &snapshot.release {
        let mut rows = vec![
            ("Release", release.id.clone()),
            ("Published", release.published.clone()),
            ("Files", release.files.to_string()),
        ];
        if let Some(fetched) = release.fetched_files {
            rows.push(("Fetched for it", fetched.to_string()));
        }
        section(&mut page, "Content", &rows);
    }
    if let Some(sync) = &snapshot.sync {
        let mut rows = vec![
            ("Content manager", some(&sync.source)),
            ("Last sync", some(&sync.last)),
            ("Its result", some(&sync.result)),
            ("Next sync", if sync.waiting { "when there is a change".to_owned() } else { some(&sync.next) }),
        ];
        if let Some(error) = &sync.error {
            rows.push(("Why it failed", error.clone()));
        }
        section(&mut page, "Sync", &rows);
    }
    if let Some(kubelet) = &snapshot.kubelet {
        let latest = kubelet.events.iter().rev().take(EVENTS);
        let rows: Vec<(&str, String)> =
            latest.map(|event| (event.at.as_str(), format!("{}: {}", event.container, event.text))).collect();
        section(&mut page, "What the kubelet did, latest first", &rows);
    }
    let answered = snapshot.requests.classes.iter().map(|(class, count)| (*class, count.to_string()));
    section(&mut page, "Answers", &answered.collect::<Vec<_>>());
    let mut rows = vec![
        ("Lines written", snapshot.log.written.to_string()),
        ("Not written", snapshot.log.dropped.to_string()),
    ];
    for sink in &snapshot.log.sinks {
        rows.push(("Log sink", sink.name.clone()));
        let count =
            |count: Option<u64>| count.map_or_else(|| "not known".to_owned(), |count| count.to_string());
        rows.push(("Lines shipped to it", count(sink.shipped)));
        rows.push(("Bytes lost to it", count(sink.lost_bytes)));
        if let Some(reason) = &sink.failing {
            rows.push(("It does not confirm", reason.clone()));
        }
    }
    section(&mut page, "Log", &rows);
    let pod = &snapshot.pod;
    let named = [("Name", &pod.name), ("Namespace", &pod.namespace), ("Uid", &pod.uid), ("Node", &pod.node)];
    let mut rows: Vec<_> = named.into_iter().map(|(name, value)| (name, some(value))).collect();
    rows.extend(listed("Labels", &pod.labels));
    rows.extend(listed("Annotations", &pod.annotations));
    section(&mut page, "Pod", &rows);
    page.push_str("</main>\n</body>\n</html>\n");
    page
}

fn described(container: &Container) -> Vec<(&'static str, String)> {
    let state = match (container.state, &container.last) {
        (State::Down, _) => "down",
        (State::Up, Some(last)) if last.draining => "draining",
        (State::Up, Some(last)) if !last.ready => "up, not ready",
        (State::Up, _) => "up, ready",
    };
    let mut rows = vec![("State", state.to_owned())];
    if let Some(reason) = &container.reason {
        rows.push(("Why", reason.clone()));
    }
    if let Some(last) = &container.last {
        rows.push(("Started", last.started.clone()));
        rows.push(("Version", last.version.clone()));
    }
    rows.push(("Restarts seen", container.restarts.to_string()));
    rows
}

fn listed(name: &'static str, pairs: &BTreeMap<String, String>) -> Option<(&'static str, String)> {
    let pairs: Vec<_> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
    (!pairs.is_empty()).then(|| (name, pairs.join(", ")))
}

fn section(page: &mut String, title: &str, rows: &[(&str, String)]) {
    let mut text = format!("<h2>{}</h2>\n<table>\n", escaped(title));
    for (name, value) in rows {
        // Writing to a String cannot fail.
        writeln!(text, "<tr><th scope=\"row\">{}</th><td>{}</td></tr>", escaped(name), escaped(value))
            .ignore();
    }
    text.push_str("</table>\n");
    page.push_str(&text);
}

/// SECURITY: annotations hold whatever users of the cluster put there.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
