//! The access log's files, moved on by the server or by somebody else.

use rustix::process::Signal;
use testkit::wait_until;

use crate::access_log::{Logged, ids, lines, wait_for_lines};

#[test]
fn access_log_rotation_size() {
    let logged = Logged::start(&["--access-log-max-size", "4KiB", "--access-log-keep", "100"]);
    logged.ask(0..100);
    let last =
        || std::fs::read_to_string(logged.path()).unwrap_or_default().contains("\"request.id\":\"99\"");
    wait_until("the last line is written", last);
    let mut files = Vec::new();
    for number in 1.. {
        let path = logged.path().with_file_name(format!("access.log.{number}"));
        if !path.exists() {
            break;
        }
        files.push(path);
    }
    assert!(files.len() >= 5, "{}", files.len());
    files.reverse();
    files.push(logged.path());
    let mut all = Vec::new();
    for path in &files {
        assert!(std::fs::metadata(path).unwrap().len() <= 4096, "{}", path.display());
        all.extend(lines(path));
    }
    // Each exactly once, and in order from the oldest file to the newest.
    assert_eq!(ids(&all), (0..100).collect::<Vec<_>>());
}

#[test]
fn access_log_rotation_age() {
    let logged = Logged::start(&["--access-log-max-age", "300ms"]);
    let old = logged.path().with_file_name("access.log.1");
    logged.ask(0..5);
    // The first line after that time goes to a new file.
    let mut next = 5;
    wait_until("the file is old enough", || {
        logged.ask(next..=next);
        next += 1;
        wait_until("the line is written", || logged.written() == next as u64);
        old.exists()
    });
    let mut all = ids(&lines(&old));
    assert!(all.len() >= 5, "{all:?}");
    all.extend(ids(&lines(&logged.path())));
    assert_eq!(all, (0..next).collect::<Vec<_>>());
    assert_eq!(logged.dropped(), 0);
}

#[test]
fn access_log_keeps_so_many() {
    let logged = Logged::start(&["--access-log-max-size", "1KiB", "--access-log-keep", "2"]);
    logged.ask(0..50);
    let last =
        || std::fs::read_to_string(logged.path()).unwrap_or_default().contains("\"request.id\":\"49\"");
    wait_until("the last line is written", last);
    let mut names: Vec<_> = std::fs::read_dir(logged.path().parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["access.log", "access.log.1", "access.log.2"]);
}

#[test]
fn access_log_sighup_reopen() {
    let logged = Logged::start(&[]);
    let moved = logged.path().with_file_name("moved.log");
    logged.ask(0..10);
    wait_for_lines(&logged.path(), 10);
    std::fs::rename(logged.path(), &moved).unwrap();
    // Until it is told, it goes on where it was.
    logged.ask(10..20);
    wait_for_lines(&moved, 20);
    logged.server.process.signal(Signal::HUP);
    wait_until("it has a new file", || logged.path().exists());
    logged.ask(20..30);
    let (old, new) = (lines(&moved), wait_for_lines(&logged.path(), 10));
    assert_eq!(ids(&old), (0..20).collect::<Vec<_>>());
    assert_eq!(ids(&new), (20..30).collect::<Vec<_>>());
}
