//! Receivers that are slow, and receivers that refuse everything.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_socket_recv_buffer_size;
use serde_json::Value;
use testkit::http::Message;
use testkit::{Answer, Upstream, wait_until};

use crate::support::{Receiver, Room, Verdict, append, metric, status, write, write_numbers};

/// A receiver that reads 8 KB a second, and keeps what it has read to its end.
struct Slow {
    addr: SocketAddr,
    bodies: Arc<Mutex<Vec<String>>>,
}

impl Slow {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (addr, bodies) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<_>>>::default());
        let kept = Arc::clone(&bodies);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let kept = Arc::clone(&kept);
                std::thread::spawn(move || while serve(client.as_ref().unwrap(), &kept).is_some() {});
            }
        });
        Self { addr, bodies }
    }

    /// Those that came, each once.
    fn distinct(&self) -> Vec<String> {
        let mut bodies = self.bodies.lock().unwrap().clone();
        bodies.sort();
        bodies.dedup();
        bodies
    }
}

fn serve(mut client: &TcpStream, kept: &Mutex<Vec<String>>) -> Option<()> {
    let mut request = Vec::new();
    let mut piece = [0; 400];
    let (head, length) = loop {
        let read = client.read(&mut piece).ok().filter(|read| *read > 0)?;
        request.extend_from_slice(&piece[..read]);
        std::thread::sleep(Duration::from_millis(50));
        let text = String::from_utf8_lossy(&request).to_lowercase();
        let Some(head) = text.find("\r\n\r\n") else { continue };
        let length = text[..head].lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.expect("a body of a known length").trim().parse().unwrap();
        if request.len() >= head + 4 + length {
            break (head + 4, length);
        }
    };
    let records = String::from_utf8(request[head..head + length].to_vec()).unwrap();
    let record =
        |line: &str| serde_json::from_str::<Value>(line).unwrap()["body"].as_str().unwrap().to_owned();
    kept.lock().unwrap().extend(records.lines().map(record));
    client.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").ok()
}

#[test]
fn a_slow_receiver_gets_everything() {
    let (room, receiver) = (Room::new(), Slow::start());
    write_numbers(&mut append(&room.log("a.log")), 0..200);
    let sink = format!("ndjson+http://{}/", receiver.addr);
    // The whole would take four seconds, and eight records a third of one.
    let mut agent = room.agent(&sink, &["--sink-timeout", "1s"]);
    wait_until("all arrive", || receiver.distinct().len() == 200);
    assert!(metric(&agent, "log_agent_delivery_retries_total") > 0.5, "it was too much at first");
    agent.event("it says so", |event| {
        event["reason"].as_str().is_some_and(|reason| reason.contains("for 1s"))
    });
    wait_until("all are confirmed", || {
        (metric(&agent, "log_agent_confirmed_records_total") - 200.0).abs() < 0.1
    });
    assert!(agent.terminate().success());
}

/// Takes one request, a piece after the other, and returns its body and how long that took.
///
/// The kernel takes megabytes of it at once from the agent, which then sees nothing move until most of them are read. So the pieces are
/// small against that, and the last megabytes, of which the agent sees nothing at all, are taken quickly.
fn take_slowly(listener: &TcpListener) -> (Vec<u8>, Duration) {
    const PIECE: usize = 256 << 10;
    const UNSEEN: usize = 8 << 20;
    let (client, _) = listener.accept().unwrap();
    let begin = Instant::now();
    let mut reader = BufReader::new(&client);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if let Some(value) = line.to_lowercase().strip_prefix("content-length: ") {
            length = value.trim().parse().unwrap();
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    for piece in body.chunks_mut(PIECE) {
        length -= piece.len();
        reader.read_exact(piece).unwrap();
        if length > UNSEEN {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    (&client).write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
    (body, begin.elapsed())
}

/// Progress decides, and no clock: as long as something moves, a request is not cut off to be sent again.
#[test]
fn a_request_that_takes_a_slow_receiver_longer_than_the_timeout_is_sent_once() {
    const TIMEOUT: Duration = Duration::from_secs(1);
    const LINES: usize = 400;
    let (room, listener) = (Room::new(), TcpListener::bind("127.0.0.1:0").unwrap());
    set_socket_recv_buffer_size(&listener, 64 << 10).unwrap();
    // Each of these becomes six bytes of JSON, so that one chunk is 24 MB on its way.
    let filler = "\u{1}".repeat(10_000);
    write(&room.log("a.log"), (0..LINES).map(|line| format!("{line} {filler}\n")).collect::<String>());
    let sink = format!("ndjson+http://{}/", listener.local_addr().unwrap());
    let more = ["--sink-timeout", "1s", "--chunk-size", "64MiB"];
    let mut agent = room.agent(&sink, &more);
    let (body, took) = take_slowly(&listener);
    assert!(took > 2 * TIMEOUT, "{took:?}: it was not slow");
    let records = String::from_utf8(body).unwrap();
    assert_eq!(records.lines().count(), LINES, "one request has all of them");
    wait_until("they are confirmed", || {
        (metric(&agent, "log_agent_confirmed_records_total") - LINES as f64).abs() < 0.1
    });
    assert!(metric(&agent, "log_agent_delivery_retries_total") < 0.5, "{}", agent.stderr());
    assert!(agent.terminate().success());
}

/// It cannot be halved, so it gets more time.
#[test]
fn a_record_that_takes_a_slow_receiver_longer_than_the_timeout() {
    let (room, receiver) = (Room::new(), Slow::start());
    write(&room.log("a.log"), "x".repeat(16_000) + "\n");
    let sink = format!("ndjson+http://{}/", receiver.addr);
    let _agent = room.agent(&sink, &["--sink-timeout", "300ms"]);
    wait_until("it arrives", || receiver.distinct().iter().any(|body| body.len() == 16_000));
}

/// Confirms the first record, and then refuses everything.
fn refuses_all_but_the_first(request: &Message) -> Verdict {
    if request.text().contains("line 0\"") { Verdict::Confirm } else { Verdict::Refuse(Answer::new(400, "")) }
}

/// In one write, so that they are read as one chunk.
fn write_at_once(room: &Room, numbers: Range<usize>) {
    let text: String = numbers.map(|number| format!("line {number}\n")).collect();
    write(&room.log("a.log"), text);
}

#[test]
fn a_receiver_that_refuses_everything_is_believed_to_be_broken() {
    let (room, receiver) = (Room::new(), Receiver::that(refuses_all_but_the_first));
    let mut file = append(&room.log("a.log"));
    write_numbers(&mut file, 0..1);
    let mut agent = room.agent(&receiver.sink(), &[]);
    receiver.expect_numbers(1);
    write_at_once(&room, 1..21);
    agent.event("it says so", |event| {
        event["reason"].as_str().is_some_and(|reason| reason.contains("refuses each of 20 records"))
    });
    wait_until("it is asked again", || receiver.upstream.requests().len() > 60);
    assert!(metric(&agent, "log_agent_sink_up") < 0.5);
    // For 30 seconds of that, the agent is unready.
    assert!(
        status(&agent)["sinks"][0]["failing"]["reason"].as_str().is_some_and(|reason| reason.contains("400"))
    );
    assert!(!room.state().join("dead-letter.ndjson").exists());
    // From the next whole chunk on: in the midst of a round of single records, the last of them would come before the first.
    let is_mended = AtomicBool::new(false);
    receiver.change(move |request| {
        if is_mended.load(Ordering::SeqCst) || request.text().lines().count() == 20 {
            is_mended.store(true, Ordering::SeqCst);
            Verdict::Confirm
        } else {
            Verdict::Refuse(Answer::new(400, ""))
        }
    });
    receiver.expect_numbers(21);
    assert!(metric(&agent, "log_agent_dead_lettered_records_total") < 0.5);
    assert!(agent.terminate().success());
}

#[test]
fn after_reject_wait_the_records_are_believed_to_be_bad() {
    let (room, receiver) = (Room::new(), Receiver::that(refuses_all_but_the_first));
    let mut file = append(&room.log("a.log"));
    write_numbers(&mut file, 0..1);
    let mut agent = room.agent(&receiver.sink(), &["--reject-wait", "300ms"]);
    receiver.expect_numbers(1);
    write_at_once(&room, 1..11);
    wait_until("they are dead letters", || {
        (metric(&agent, "log_agent_dead_lettered_records_total") - 10.0).abs() < 0.1
    });
    let letters = std::fs::read_to_string(room.state().join("dead-letter.ndjson")).unwrap();
    assert_eq!(letters.lines().count(), 10);
    receiver.change(|_| Verdict::Confirm);
    write_numbers(&mut file, 11..12);
    wait_until("the next arrives", || receiver.bodies() == ["line 0", "line 11"]);
    assert!(agent.terminate().success(), "the position moved over them");
}

/// Records that come one at a time are as many in the end.
#[test]
fn refusals_are_counted_across_chunks() {
    let (room, receiver) = (Room::new(), Receiver::that(refuses_all_but_the_first));
    let mut file = append(&room.log("a.log"));
    write_numbers(&mut file, 0..1);
    let agent = room.agent(&receiver.sink(), &[]);
    receiver.expect_numbers(1);
    for number in 1..8 {
        write_numbers(&mut file, number..=number);
        wait_until("it is a dead letter", || {
            metric(&agent, "log_agent_dead_lettered_records_total") > number as f64 - 0.5
        });
    }
    write_numbers(&mut file, 8..9);
    agent.event("it says so", |event| {
        event["reason"].as_str().is_some_and(|reason| reason.contains("refuses each of 1 records"))
    });
    receiver.change(|_| Verdict::Confirm);
    wait_until("the eighth arrives", || receiver.bodies() == ["line 0", "line 8"]);
}

/// A receiver that recovers while it is asked for each record: none of those that it had refused by then is given up.
#[test]
fn a_receiver_that_recovers_in_the_middle() {
    let count = Mutex::new(0);
    let receiver = Receiver::that(move |request| {
        let mut count = count.lock().unwrap();
        *count += usize::from(!request.text().contains("line 0\""));
        if *count > 0 && *count < 12 { Verdict::Refuse(Answer::new(400, "")) } else { Verdict::Confirm }
    });
    let room = Room::new();
    let mut file = append(&room.log("a.log"));
    write_numbers(&mut file, 0..1);
    let agent = room.agent(&receiver.sink(), &[]);
    receiver.expect_numbers(1);
    write_at_once(&room, 1..101);
    receiver.expect_each_number(101);
    assert!(metric(&agent, "log_agent_dead_lettered_records_total") < 0.5);
}

#[test]
fn an_answer_whose_body_never_ends_confirms() {
    let room = Room::new();
    let upstream = Upstream::start(|_| {
        Answer::raw(|client| {
            client.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{").unwrap();
            // Until the agent has had enough.
            client.read_to_end(&mut Vec::new()).unwrap();
        })
    });
    write_numbers(&mut append(&room.log("a.log")), 0..10);
    let sink = format!("ndjson+{}", upstream.url("/"));
    // As long as the head of an answer may take on a machine with other things to do.
    let agent = room.agent(&sink, &["--sink-timeout", "3s"]);
    wait_until("all are confirmed", || metric(&agent, "log_agent_confirmed_records_total") > 9.5);
    assert!(metric(&agent, "log_agent_delivery_retries_total") < 0.5);
}
