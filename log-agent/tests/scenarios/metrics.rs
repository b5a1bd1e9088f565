//! What a scraper is told while lines wait, and when they are there.

use testkit::{Answer, wait_until};

use crate::support::{Receiver, Room, Verdict, append, metric, write, write_numbers};

#[test]
fn metrics_while_a_sink_is_down_and_after() {
    let (room, receiver) = (Room::new(), Receiver::that(|_| Verdict::Refuse(Answer::new(503, ""))));
    write_numbers(&mut append(&room.log("a.log")), 0..10);
    write(&room.log("b.log"), "line 10\nno end");
    let more = ["--rescan-period", "100ms", "--checkpoint-period", "50ms"];
    let agent = room.agent(&receiver.sink(), &more);
    let is = |name: &str, value: f64| (metric(&agent, name) - value).abs() < 0.1;
    let file = |name: &str, file: &str| {
        metric(&agent, &format!("log_agent_file_lag_{name}{{file=\"{}\"", room.log(file).display()))
    };
    wait_until("it was tried", || metric(&agent, "log_agent_delivery_retries_total") > 1.5);
    wait_until("lines are under way", || {
        is("log_agent_in_flight_bytes", 67.0) || is("log_agent_in_flight_bytes", 60.0)
    });
    wait_until("the first file waits", || (file("bytes", "a.log") - 70.0).abs() < 0.1);
    wait_until("the second file waits", || (file("bytes", "b.log") - 14.0).abs() < 0.1);
    let before = file("seconds", "a.log");
    assert!(before > 0.0);
    wait_until("and longer", || file("seconds", "a.log") > before && file("seconds", "b.log") > before);
    assert!(is("log_agent_confirmed_records_total", 0.0));
    wait_until("each attempt was timed", || metric(&agent, "log_agent_delivery_attempt_seconds_count") > 1.5);
    receiver.change(|_| Verdict::Confirm);
    wait_until("all is confirmed", || is("log_agent_confirmed_records_total", 11.0));
    assert!(is("log_agent_read_records_total", 11.0));
    assert!(is("log_agent_read_bytes_total", 67.0), "without line breaks");
    wait_until("nothing is under way", || is("log_agent_in_flight_bytes", 0.0));
    wait_until("nothing waits", || file("bytes", "a.log") < 0.5);
    assert!(file("seconds", "a.log") < 0.0001);
    wait_until("a line without an end is no delay", || {
        (file("bytes", "b.log") - 6.0).abs() < 0.1 && file("seconds", "b.log") < 0.0001
    });
    std::fs::remove_file(room.log("a.log")).unwrap();
    write(&room.log("b.log"), "\n");
    wait_until("it is there", || receiver.records().len() == 12);
}

#[test]
fn a_file_that_is_gone_leaves_no_series_behind() {
    let (room, receiver) = (Room::new(), Receiver::start());
    write(&room.log("a.log"), "line 0\n");
    let agent = room.agent(&receiver.sink(), &["--rescan-period", "50ms", "--rotate-wait", "100ms"]);
    let series = || testkit::http::get(agent.addr("admin"), "/metrics").text().matches("{file=").count();
    wait_until("it is followed", || series() == 2);
    std::fs::remove_file(room.log("a.log")).unwrap();
    wait_until("it is gone", || series() == 0);
}
