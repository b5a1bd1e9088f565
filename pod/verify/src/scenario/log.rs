//! From a request to the log sink.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::engine::Engine;
use crate::wait::within;

const REQUESTS: usize = 300;
const DELIVERY: Duration = Duration::from_secs(20);

/// N requests make N records at the sink, each with an id of its own.
pub fn every_request_is_in_the_log_once(pod: &dyn Engine) -> Result<()> {
    let tag = unique_tag();
    for number in 0..REQUESTS {
        pod.get(&format!("/?{tag}={number}"))?;
    }
    within(DELIVERY, "every request is at the sink", || (seen(pod, &tag).len() >= REQUESTS).then_some(()))?;
    // Records arrive in order. Once a later one is there, no second copy of an earlier one can be on its way.
    let last = unique_tag();
    pod.get(&format!("/?{last}"))?;
    within(DELIVERY, "the last request is at the sink", || seen(pod, &last).into_keys().next())?;
    for (query, records) in seen(pod, &tag) {
        ensure!(records.len() == 1, "{query} is at the sink {} times", records.len());
    }
    let ids: std::collections::BTreeSet<_> = seen(pod, &tag).into_values().flatten().collect();
    ensure!(ids.len() == REQUESTS, "{} records share {} ids", REQUESTS, ids.len());
    Ok(())
}

/// The ids of the records at the sink, by the query of the request that made them, for queries that start with `tag`.
pub fn seen(pod: &dyn Engine, tag: &str) -> BTreeMap<String, Vec<String>> {
    let mut seen = BTreeMap::<String, Vec<String>>::new();
    for record in pod.shipped().unwrap_or_default() {
        let query = record["attributes"]["url.query"].as_str().unwrap_or_default();
        if query.starts_with(tag) {
            seen.entry(query.to_owned()).or_default().push(id(&record));
        }
    }
    seen
}

/// A query key that no earlier run can have used.
pub fn unique_tag() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("run-{}", now.as_nanos())
}

fn id(record: &Value) -> String {
    record["id"].as_str().unwrap_or_default().to_owned()
}
