//! Content that breaks no rule and is held back all the same.

use crate::content::ContentManager;
use crate::puller::{Volume, fails, metric, once, publishes, start_in_step, sync, try_sync};

#[test]
fn gate_require_missing() {
    let (manager, volume) =
        (ContentManager::start(&[("index.html", "1"), ("css/site.css", "a{}")]), Volume::new());
    let process = start_in_step(&manager, &volume, &["--require", "index.html,css"]);
    let before = volume.current();
    for (removed, content) in [("index.html", "1"), ("css/site.css", "a{}")] {
        manager.remove(removed);
        let outcome = fails(&process, 502, "gate");
        let error = outcome["error"].as_str().expect("an error").to_owned();
        assert!(error.starts_with("release held back: it has no ") && error.contains("--require"), "{error}");
        assert_eq!(volume.current(), before);
        manager.put(removed, content);
    }
    assert!(metric(&process, "file_puller_sync_failures_total{reason=\"gate\"}") >= 2.0);
    manager.put("index.html", "2");
    publishes(&process, &volume, &manager);
    // What is held back is not fetched first.
    assert_eq!(manager.asked().iter().filter(|path| !path.ends_with("manifest.json")).count(), 1);
}

#[test]
fn gate_shrink() {
    let files: Vec<_> = (0..10).map(|file| format!("f{file}")).collect();
    let site: Vec<_> = files.iter().map(|path| (path.as_str(), "0123456789")).collect();
    let (manager, volume) = (ContentManager::start(&site), Volume::new());
    let process = start_in_step(&manager, &volume, &["--max-shrink", "50%"]);
    let before = volume.current();
    let whole = manager.site().files.clone();
    for path in &files[..6] {
        manager.remove(path);
    }
    let answer = try_sync(&process).json();
    assert_eq!(answer["error"], "release held back: files shrink from 10 to 4, more than --max-shrink 50%");
    manager.site().files = whole;
    for path in &files {
        manager.put(path, "1234");
    }
    let answer = try_sync(&process).json();
    assert_eq!(answer["error"], "release held back: bytes shrink from 100 to 40, more than --max-shrink 50%");
    assert_eq!(volume.current(), before);
    manager.put("f0", "x".repeat(14));
    publishes(&process, &volume, &manager);
    assert_eq!(sync(&process)["result"], "unchanged");
}

#[test]
fn gates_are_the_operators_and_wrong_ones_are_told() {
    let (manager, volume) = (ContentManager::start(&[("index.html", "1")]), Volume::new());
    for (flag, value, what) in [("--require", "../x", "'.' or '..'"), ("--max-shrink", "50", "50%")] {
        let (code, stderr) = once(&manager.url(), &volume.path(), &[flag, value]);
        assert_eq!((code, stderr.lines().count()), (64, 1), "{stderr}");
        assert!(stderr.contains(what), "{stderr}");
    }
}
