//! Dead letters, sent again.

use std::fs;
use std::path::Path;

use serde_json::Value;
use testkit::http::Message;
use testkit::process::run;
use testkit::{Answer, wait_until};

use crate::otlp::{Collector, attribute, text};
use crate::support::{Receiver, Room, Verdict, binary, metric, write};

const LINES: [&str; 4] = [
    r#"{"timestamp":"2026-11-23T18:02:03.123456Z", "n":1.50, "big":123456789012345678901234567890, "wrong":1}"#,
    "wrong text \u{e9}",
    "{wrong",
    "good",
];

/// Four records, of which a receiver has refused the first three.
fn letters(room: &Room) -> (std::path::PathBuf, Vec<String>) {
    let judge = |request: &Message| {
        if request.text().contains("wrong") {
            Verdict::Refuse(Answer::new(400, ""))
        } else {
            Verdict::Confirm
        }
    };
    let receiver = Receiver::that(judge);
    let text: String = LINES.iter().rev().map(|line| format!("{line}\n")).collect();
    write(&room.log("a.log"), text);
    let sink = format!("here={}", receiver.sink());
    let mut agent = room.agent(&sink, &["--label", "service.name=web"]);
    wait_until("they are dead letters", || metric(&agent, "log_agent_dead_lettered_records_total") > 2.5);
    assert!(agent.terminate().success());
    let file = room.state().join("dead-letter.ndjson");
    let letters = fs::read_to_string(&file).unwrap();
    let record = |line: &str| {
        let (_, record) = line.split_once("\"record\":").unwrap();
        record.strip_suffix('}').unwrap().to_owned()
    };
    (file, letters.lines().map(record).collect())
}

fn replay(file: &Path, more: &[&str]) -> (i32, String) {
    let args = ["replay", file.to_str().unwrap()].into_iter().chain(more.iter().copied());
    let (code, stdout, stderr) = run(binary(), args);
    assert_eq!(stdout, "");
    (code, stderr)
}

#[test]
fn replay_sends_dead_letters_again() {
    let room = Room::new();
    let (file, records) = letters(&room);
    let receiver = Receiver::start();
    let (code, stderr) = replay(&file, &["--sink", &receiver.sink()]);
    assert_eq!(code, 0, "{stderr}");
    let sent: String = receiver.upstream.requests().iter().map(|request| request.text().to_owned()).collect();
    assert_eq!(sent.lines().collect::<Vec<_>>(), records, "as they were, byte for byte");
    assert!(sent.contains(r#""attributes":{"timestamp":"2026-11-23T18:02:03.123456Z", "n":1.50, "big":123456789012345678901234567890, "wrong":1}"#), "{sent}");
}

#[test]
fn replay_to_another_kind_of_sink() {
    let room = Room::new();
    let (file, records) = letters(&room);
    let collector = Collector::start();
    let (code, stderr) = replay(&file, &["--sink", &format!("here={}", collector.sink())]);
    assert_eq!(code, 0, "{stderr}");
    let sent = collector.records();
    assert_eq!(sent.len(), 3);
    for (record, letter) in sent.iter().zip(&records) {
        let letter: Value = serde_json::from_str(letter).unwrap();
        assert_eq!(attribute(&record.attributes, "log.record.uid"), text(letter["id"].as_str().unwrap()));
        assert_eq!(attribute(&record.attributes, "log.file.path"), text(room.log("a.log").to_str().unwrap()));
    }
    let object = sent.iter().find(|record| record.time_unix_nano > 0).unwrap();
    assert_eq!(attribute(&object.attributes, "big"), text("123456789012345678901234567890"));
}

#[test]
fn replay_keeps_what_is_refused_again() {
    let room = Room::new();
    let (file, records) = letters(&room);
    let judge = |request: &Message| {
        if request.text().contains("{wrong") {
            Verdict::Refuse(Answer::new(422, ""))
        } else {
            Verdict::Confirm
        }
    };
    let receiver = Receiver::that(judge);
    let (code, stderr) = replay(&file, &["--sink", &receiver.sink()]);
    assert_eq!(code, 78, "{stderr}");
    assert!(stderr.lines().last().unwrap().contains("1 of 3 records were refused again"), "{stderr}");
    assert_eq!(receiver.count(), 2);
    let again = fs::read_to_string(room.state().join("dead-letter.ndjson.refused")).unwrap();
    let broken = records.iter().find(|record| record.contains("{wrong")).unwrap();
    assert!(again.contains(broken.as_str()) && again.lines().count() == 1, "{again}");
    assert_eq!(fs::read_to_string(&file).unwrap().lines().count(), 3, "the file stays as it is");
}

#[test]
fn replay_that_cannot_be() {
    let room = Room::new();
    let (file, _) = letters(&room);
    let down = Receiver::that(|_| Verdict::Refuse(Answer::new(503, "")));
    let (code, stderr) = replay(&file, &["--sink", &down.sink(), "--give-up-after", "200ms"]);
    assert_eq!(code, 69, "{stderr}");
    assert!(stderr.contains("503"), "{stderr}");
    let (code, stderr) = replay(&file, &["--sink", &format!("a={},b=stdout:", down.sink())]);
    assert_eq!(code, 64, "{stderr}");
    assert!(stderr.contains("here"), "{stderr}");
    write(&file, "{\"no\":\"letter\"}\n");
    let (code, stderr) = replay(&file, &["--sink", &down.sink()]);
    assert_eq!(code, 78, "{stderr}");
    assert!(stderr.contains("line 4"), "{stderr}");
    let (code, _) = replay(&room.path("none"), &["--sink", &down.sink()]);
    assert_eq!(code, 74);
}

#[test]
fn replay_with_flags_that_do_not_fit() {
    let room = Room::new();
    let (file, _) = letters(&room);
    let (code, stderr) = replay(&file, &["--sink", "here=stdout:,here=stdout:"]);
    assert_eq!(code, 64, "{stderr}");
    assert!(stderr.contains("twice"), "{stderr}");
    let (code, stderr) = replay(&file, &["--sink", "forward://127.0.0.1:9", "--compression", "zstd"]);
    assert_eq!(code, 64, "{stderr}");
    assert!(stderr.contains("gzip is"), "{stderr}");
}

/// As many short letters as such a file may hold: which sink each goes to is not asked of all of them for each.
#[test]
fn replay_of_a_full_file() {
    let room = Room::new();
    let letter = |at: usize| {
        format!(
            r#"{{"reason":"x","sink":"here","record":{{"id":"0123456789abcdef:{at}","observed_timestamp":"2026-11-23T18:02:03Z","body":"line","log.file.path":"/a","resource":{{}}}}}}"#
        )
    };
    let file = room.path("letters");
    write(&file, (0..100_000).map(|number| letter(number * 5) + "\n").collect::<String>());
    let out = room.path("out");
    let (code, stderr) = replay(&file, &["--sink", &format!("file:{}", out.display())]);
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(fs::read_to_string(out).unwrap().lines().count(), 100_000);
}
