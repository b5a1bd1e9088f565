//! What becomes of old releases: they stay for those who read them, and then they go.

use testkit::wait_until;

use crate::content::ContentManager;
use crate::puller::{Volume, names, publishes, start_in_step, sync};

const SITE: &[(&str, &str)] = &[("index.html", "<h1>hello</h1>"), ("css/site.css", "a{}")];

#[test]
fn retention() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let process = start_in_step(&manager, &volume, &["--keep", "2", "--keep-for", "0s"]);
    let mut published = vec![volume.current().expect("published")];
    for release in 1..=5 {
        manager.put("index.html", release.to_string());
        publishes(&process, &volume, &manager);
        published.push(volume.current().expect("published"));
        let mut newest: Vec<_> = published.iter().rev().take(3).cloned().collect();
        newest.sort();
        // It comes after the answer: nobody who asked for a sync waits for it.
        wait_until("what was beyond the bound is gone", || {
            names(&volume.join("releases")).len() == 2 * newest.len() && volume.staging().is_empty()
        });
        assert_eq!(volume.releases(), newest);
    }
}

#[test]
fn retention_gives_readers_their_time() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let process = start_in_step(&manager, &volume, &["--keep", "0", "--keep-for", "1h"]);
    for release in 1..=4 {
        manager.put("index.html", release.to_string());
        publishes(&process, &volume, &manager);
    }
    assert_eq!(volume.releases().len(), 5);
}

#[test]
fn retention_comes_back_to_its_bound_without_a_new_release() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let process = start_in_step(&manager, &volume, &["--keep", "1", "--keep-for", "200ms"]);
    for release in 1..=4 {
        manager.put("index.html", release.to_string());
        publishes(&process, &volume, &manager);
    }
    wait_until("the bound is reached", || {
        assert_eq!(sync(&process)["result"], "unchanged");
        names(&volume.join("releases")).len() == 4
    });
    assert_eq!(volume.tree(), manager.site().files);
}
