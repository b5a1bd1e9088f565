//! Sinks that are slow, down, mistaken or forgetful.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use testkit::http::get;
use testkit::wait::within;
use testkit::{Answer, Process, Upstream, wait_until};

use crate::support::{Bounded as _, Receiver, Room, Verdict, append, metric, write, write_numbers};

#[test]
fn sink_503() {
    let (room, receiver) = (Room::new(), Receiver::that(|_| Verdict::Refuse(Answer::new(503, ""))));
    write_numbers(&mut append(&room.log("a.log")), 0..10);
    let agent = room.agent(&receiver.sink(), &[]);
    agent.event("it says so", |event| event["reason"].as_str().is_some_and(|reason| reason.contains("503")));
    wait_until("it is tried again", || receiver.upstream.requests().len() >= 3);
    assert!(metric(&agent, "log_agent_sink_up") < 0.5);
    receiver.change(|_| Verdict::Confirm);
    receiver.expect_numbers(10);
    agent.event("it says so", |event| event["message"] == "sink confirms again");
    wait_until("it is up", || metric(&agent, "log_agent_sink_up") > 0.5);
}

/// Half a minute of that is what the files are a buffer for, so this takes half a minute.
#[test]
fn an_agent_is_unready_while_a_sink_fails_for_longer() {
    let (room, good) = (Room::new(), Receiver::start());
    let bad = Receiver::that(|_| Verdict::Refuse(Answer::new(503, "")));
    let mut file = append(&room.log("a.log"));
    write_numbers(&mut file, 0..10);
    let sinks = [good.sink(), format!("bad={}", bad.sink())];
    let agent = Process::start_command(room.command("logs/*.log", &[&sinks[0], &sinks[1]], &[]));
    good.expect_numbers(10);
    agent.event("it says so", |event| event["reason"].as_str().is_some_and(|reason| reason.contains("503")));
    let mut answers = Vec::new();
    let unready = within(2 * testkit::wait::DEADLINE, || {
        let answer = get(agent.addr("admin"), "/readyz");
        answers.push(answer.status());
        (answer.status() == 503).then(|| answer.text().to_owned())
    });
    let unready = unready.unwrap_or_else(|| panic!("it is ready all the time: {}", agent.stderr()));
    assert!(unready.contains("sink bad has not confirmed for 3") && unready.contains("503"), "{unready}");
    assert_eq!(answers[0], 200, "a short outage is none of the probe's business");
    // The other one goes on.
    write_numbers(&mut file, 10..20);
    good.expect_numbers(20);
    bad.change(|_| Verdict::Confirm);
    bad.expect_numbers(20);
    wait_until("it is ready again", || get(agent.addr("admin"), "/readyz").status() == 200);
}

#[test]
fn sink_429_retry_after() {
    let (room, receiver) = (Room::new(), Receiver::start());
    receiver.change(|_| Verdict::Refuse(Answer::new(429, "").with("Retry-After", "1")));
    write(&room.log("a.log"), "line 0\n");
    let _agent = room.agent(&receiver.sink(), &[]);
    wait_until("it was asked", || receiver.upstream.requests().len() == 1);
    let asked = Instant::now();
    receiver.change(|_| Verdict::Confirm);
    receiver.expect_numbers(1);
    assert!(asked.elapsed() >= Duration::from_millis(950), "{:?}", asked.elapsed());
}

#[test]
fn ack_lost() {
    let lost = AtomicUsize::new(0);
    let receiver = Receiver::that(move |_| {
        if lost.fetch_add(1, Ordering::SeqCst) == 0 { Verdict::LoseTheAnswer } else { Verdict::Confirm }
    });
    let room = Room::new();
    write_numbers(&mut append(&room.log("a.log")), 0..10);
    let _agent = room.agent(&receiver.sink(), &[]);
    wait_until("it comes again", || receiver.upstream.requests().len() == 2);
    let requests = receiver.upstream.requests();
    assert!(requests[0].header("idempotency-key").is_some_and(|key| key.len() == 32));
    assert_eq!(requests[0].header("idempotency-key"), requests[1].header("idempotency-key"));
    assert_eq!(requests[0].body, requests[1].body);
    receiver.expect_each_number(10);
}

#[test]
fn ndjson_wire() {
    let (room, receiver) = (Room::new(), Receiver::start());
    write(&room.log("a.log"), "a\nb\n");
    let _agent = room.agent(&receiver.sink(), &[]);
    receiver.expect(&["a", "b"]);
    let request = &receiver.upstream.requests()[0];
    assert_eq!(request.start, "POST /logs HTTP/1.1");
    assert_eq!(request.header("content-type"), Some("application/x-ndjson"));
    assert!(request.header("user-agent").is_some_and(|agent| agent.starts_with("log-agent/")));
    assert!(request.text().ends_with('\n'));
    assert_eq!(request.text().lines().count(), 2);
}

#[test]
fn sink_400() {
    let room = Room::new();
    // A receiver that refuses a whole request for one bad record, as many do.
    let judge = |request: &testkit::http::Message| {
        let poison =
            ["line 137\"", "line 138\"", "line 400\""].iter().any(|bad| request.text().contains(bad));
        if poison { Verdict::Refuse(Answer::new(400, "")) } else { Verdict::Confirm }
    };
    let receiver = Receiver::that(judge);
    write_numbers(&mut append(&room.log("a.log")), 0..500);
    let mut agent = room.agent(&receiver.sink(), &[]);
    wait_until("all others arrive", || receiver.records().len() == 497);
    wait_until("the refused are counted", || metric(&agent, "log_agent_lost_bytes_total") > 23.5);
    assert!((metric(&agent, "log_agent_dead_lettered_records_total") - 3.0).abs() < 0.1);
    wait_until("and are not taken for confirmed", || {
        (metric(&agent, "log_agent_confirmed_records_total") - 497.0).abs() < 0.1
    });
    assert!((metric(&agent, "log_agent_refused_records_total") - 3.0).abs() < 0.1);
    let numbers: Vec<_> = receiver.bodies().iter().filter_map(|body| crate::support::number(body)).collect();
    assert!(
        numbers.iter().copied().eq((0..500).filter(|number| ![137, 138, 400].contains(number))),
        "in order"
    );
    let letters = std::fs::read_to_string(room.state().join("dead-letter.ndjson")).unwrap();
    let letters: Vec<serde_json::Value> =
        letters.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let bodies: Vec<_> = letters.iter().map(|letter| letter["record"]["body"].as_str().unwrap()).collect();
    assert_eq!(bodies, ["line 137", "line 138", "line 400"]);
    assert!(letters[0]["reason"].as_str().unwrap().contains("400"));
    let lost = agent.event("the loss", |event| event["reason"] == "refused_by_sink");
    assert_eq!(lost["bytes"], 8);
    assert!(agent.terminate().success(), "the position moved over them");
    let _agent = room.agent(&receiver.sink(), &[]);
    write(&room.log("a.log"), "line 500\n");
    wait_until("the next line arrives", || receiver.records().len() == 498);
}

#[test]
fn a_receiver_that_never_took_anything_is_not_believed() {
    let (room, receiver) = (Room::new(), Receiver::that(|_| Verdict::Refuse(Answer::new(400, ""))));
    write_numbers(&mut append(&room.log("a.log")), 0..10);
    let agent = room.agent(&receiver.sink(), &[]);
    agent.event("it says so", |event| event["reason"].as_str().is_some_and(|reason| reason.contains("400")));
    wait_until("it is tried again", || receiver.upstream.requests().len() >= 6);
    receiver.change(|_| Verdict::Confirm);
    receiver.expect_numbers(10);
    assert!(!room.state().join("dead-letter.ndjson").exists());
}

#[test]
fn a_redirect_is_not_followed() {
    let elsewhere = Upstream::start(|_| Answer::new(200, ""));
    let url = elsewhere.url("/");
    let receiver = Receiver::that(move |_| Verdict::Refuse(Answer::new(307, "").with("Location", &url)));
    let room = Room::new();
    write(&room.log("a.log"), "line 0\n");
    let _agent = room.agent(&receiver.sink(), &[]);
    wait_until("it is tried again", || receiver.upstream.requests().len() >= 2);
    assert!(elsewhere.requests().is_empty());
    receiver.change(|_| Verdict::Confirm);
    receiver.expect_numbers(1);
}

#[test]
fn sink_down_with_rotations() {
    let room = Room::new();
    // A port that nobody listens on, until somebody does.
    let addr = Upstream::start(|_| Answer::new(200, "")).addr();
    let agent = room.agent(&format!("ndjson+http://{addr}/"), &[]);
    let filler = "x".repeat(100);
    for round in 0..5 {
        let text: String =
            (round * 4000..(round + 1) * 4000).map(|number| format!("line {number} {filler}\n")).collect();
        write(&room.log("a.log"), text);
        if round < 4 {
            std::fs::rename(room.log("a.log"), room.log(&format!("a.log.{}", 4 - round))).unwrap();
        }
    }
    agent.event("it says so", |event| {
        event["message"].as_str().is_some_and(|text| text.contains("does not confirm"))
    });
    agent.expect_bounded(&room);
    let up = Upstream::start_on(addr, |_| Answer::new(200, ""));
    wait_until("all arrive", || {
        let lines = up.requests().iter().map(|request| request.text().lines().count()).sum::<usize>();
        assert!(lines <= 20_000);
        lines == 20_000
    });
    let bodies = up
        .requests()
        .iter()
        .flat_map(|request| {
            let records: Vec<serde_json::Value> =
                request.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            records
        })
        .map(|record| record["body"].as_str().unwrap().split(' ').nth(1).unwrap().parse::<usize>().unwrap())
        .collect::<Vec<_>>();
    assert!(bodies.into_iter().eq(0..20_000), "in order");
    agent.expect_bounded(&room);
}

#[test]
fn sink_slow() {
    let judge = |_: &testkit::http::Message| {
        std::thread::sleep(Duration::from_millis(10));
        Verdict::Confirm
    };
    let (room, receiver) = (Room::new(), Receiver::that(judge));
    let agent = room.agent(&receiver.sink(), &["--chunk-size", "8KiB", "--rotate-wait", "200ms"]);
    let filler = "x".repeat(90);
    for round in 0..10 {
        let text: String =
            (round * 2000..(round + 1) * 2000).map(|n| format!("line {n} {filler}\n")).collect();
        write(&room.log("a.log"), text);
        std::fs::rename(room.log("a.log"), room.log(&format!("a.log.{}", 10 - round))).unwrap();
        agent.expect_bounded(&room);
    }
    wait_until("all arrive", || {
        agent.expect_bounded(&room);
        receiver.records().len() >= 20_000
    });
    let numbers = receiver.bodies();
    let numbers = numbers.iter().map(|body| body.split(' ').nth(1).unwrap().parse::<usize>().unwrap());
    assert!(numbers.eq(0..20_000), "in order, none twice");
}

#[test]
fn sink_flapping() {
    let count = AtomicUsize::new(0);
    let receiver = Receiver::that(move |_| match count.fetch_add(1, Ordering::SeqCst) % 3 {
        0 => Verdict::Refuse(Answer::new(500, "")),
        1 => Verdict::Refuse(Answer::raw(|_| {})),
        _ => Verdict::Confirm,
    });
    let room = Room::new();
    let mut file = append(&room.log("a.log"));
    let agent = room.agent(&receiver.sink(), &["--chunk-size", "2KiB"]);
    write_numbers(&mut file, 0..1000);
    receiver.expect_numbers(1000);
    agent.expect_bounded(&room);
}

#[test]
fn two_sinks_one_down() {
    let (room, good) = (Room::new(), Receiver::start());
    let bad = Receiver::that(|_| Verdict::Refuse(Answer::new(503, "")));
    let sinks = [good.sink(), bad.sink()];
    let sinks = [sinks[0].as_str(), sinks[1].as_str()];
    let more = ["--chunk-size", "1KiB", "--shutdown-timeout", "300ms"];
    let mut file = append(&room.log("a.log"));
    write_numbers(&mut file, 0..5000);
    let mut agent = Process::start_command(room.command("logs/*.log", &sinks, &more));
    good.expect_numbers(5000);
    // A drain has too little time to be sure of a last checkpoint.
    let size = std::fs::metadata(room.log("a.log")).unwrap().len();
    wait_until("a checkpoint says so", || room.checkpointed(sinks[0]) == size);
    assert_eq!(agent.terminate().code(), Some(69));
    write_numbers(&mut file, 5000..6000);
    bad.change(|_| Verdict::Confirm);
    let _agent = Process::start_command(room.command("logs/*.log", &sinks, &more));
    // Each goes on from where it stood: nothing is missing at the one, and nothing comes twice to the other.
    bad.expect_numbers(6000);
    good.expect_numbers(6000);
}

#[test]
fn append_to_delivery_latency() {
    let (room, receiver) = (Room::new(), Receiver::start());
    let mut file = append(&room.log("a.log"));
    let _agent = room.agent(&receiver.sink(), &[]);
    write_numbers(&mut file, 0..1);
    receiver.expect_numbers(1);
    // A machine that runs all tests at once disturbs some of the lines, but not every series of them.
    let under_the_aim = (0..10).any(|series| {
        let mut times: Vec<_> = (1..=200)
            .map(|number| {
                let (number, written) = (series * 200 + number, Instant::now());
                write_numbers(&mut file, number..=number);
                while receiver.count() <= number {
                    assert!(written.elapsed() < testkit::wait::DEADLINE);
                    std::thread::sleep(Duration::from_micros(100));
                }
                written.elapsed()
            })
            .collect();
        times.sort();
        let at = |percent| testkit::percentile(&times, percent);
        println!(
            "append to delivery: p50 {:?}, p90 {:?}, p99 {:?}, max {:?}",
            at(50),
            at(90),
            at(99),
            at(100)
        );
        at(99) < Duration::from_millis(20)
    });
    assert!(under_the_aim, "p99 is 20 ms or more, ten times over");
}
