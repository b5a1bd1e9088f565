//! From the content manager to the browser.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};

use super::page;
use crate::engine::Engine;
use crate::wait::within;

/// The engines run file-puller with a period of at most this; what they promise is the period and a second.
pub const PERIOD: Duration = Duration::from_secs(2);
const PROMISE: Duration = Duration::from_secs(3);
/// Long enough for several failed polls, so that the back-off has grown.
const OUTAGE: Duration = Duration::from_secs(5);
/// The longest back-off that an outage of that length can have led to, and the promise on top.
const RECOVERY: Duration = Duration::from_secs(20);

/// A change at the content manager is served within the period and a second, whole.
pub fn edit_reaches_the_browser(pod: &dyn Engine) -> Result<()> {
    let before = pod.get("/edited.html")?;
    let edit = unique("edit");
    pod.put_content("edited.html", &edit).context("cannot edit the content")?;
    let mut odd = None;
    within(PROMISE, "the edited page is served", || {
        let page = pod.get("/edited.html").ok()?;
        let edited = page.body == edit.as_bytes();
        if !edited && page.body != before.body {
            odd = Some(page.start);
        }
        edited.then_some(())
    })?;
    ensure!(odd.is_none(), "neither the old page nor the new one was served: {odd:?}");
    Ok(())
}

/// While the content manager is away the last release is served; when it is back, so is fresh content.
pub fn content_manager_outage_keeps_serving(pod: &dyn Engine) -> Result<()> {
    let before = page(pod, "/")?;
    pod.stop_content_manager().context("cannot stop the content manager")?;
    let outage = std::time::Instant::now();
    let served = (|| {
        while outage.elapsed() < OUTAGE {
            ensure!(page(pod, "/")? == before, "the page changed while the content manager was away");
        }
        Ok(())
    })();
    pod.start_content_manager().context("cannot start the content manager")?;
    served?;

    let edit = unique("after the outage");
    within(RECOVERY, "the content manager takes edits again", || pod.put_content("edited.html", &edit).ok())?;
    within(RECOVERY, "an edit after the outage is served", || {
        pod.get("/edited.html").ok().filter(|page| page.body == edit.as_bytes())
    })?;
    Ok(())
}

/// A body that no earlier run can have left behind.
fn unique(what: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("<!doctype html><title>{what}</title><p>{} ns\n", now.as_nanos())
}
