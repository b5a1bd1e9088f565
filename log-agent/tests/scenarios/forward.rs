//! The Forward protocol, spoken with a receiver that knows MessagePack from elsewhere.

use std::io::{BufReader, Read, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rmpv::Value;
use sha2::{Digest as _, Sha512};
use testkit::wait_until;

use crate::support::{Room, append, metric, write, write_numbers};

/// What a receiver does with a chunk.
#[derive(Clone, Copy)]
enum Verdict {
    Ack,
    /// Keeps the chunk, and breaks off.
    LoseTheAck,
    /// Keeps nothing and says something else.
    WrongAck,
    /// Acknowledges, and closes the connection.
    AckAndClose,
}

#[derive(Clone)]
struct Message {
    tag: String,
    entries: Vec<Value>,
    options: Value,
}

/// Notes the messages that it took.
pub(crate) struct Receiver {
    pub(crate) addr: SocketAddr,
    messages: Arc<Mutex<Vec<Message>>>,
    /// Connections that were, and are closed.
    closed: Arc<AtomicUsize>,
}

impl Receiver {
    pub(crate) fn start() -> Self {
        Self::that(None, |_| Verdict::Ack)
    }

    fn that(key: Option<&'static str>, judge: impl Fn(usize) -> Verdict + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let messages = Arc::<Mutex<Vec<_>>>::default();
        let (kept, judge, count) = (Arc::clone(&messages), Arc::new(judge), Arc::new(AtomicUsize::new(0)));
        let closed = Arc::<AtomicUsize>::default();
        let closings = Arc::clone(&closed);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (kept, judge, count) = (Arc::clone(&kept), Arc::clone(&judge), Arc::clone(&count));
                let closings = Arc::clone(&closings);
                std::thread::spawn(move || {
                    let stream = stream.unwrap();
                    if let Some(key) = key
                        && !greet(&stream, key)
                    {
                        return;
                    }
                    converse(&stream, &kept, |_| judge(count.fetch_add(1, Ordering::SeqCst)));
                    drop(stream);
                    closings.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        Self { addr, messages, closed }
    }

    fn sink(&self) -> String {
        format!("forward://{}/web.access", self.addr)
    }

    fn messages(&self) -> Vec<Message> {
        self.messages.lock().unwrap().clone()
    }

    fn records(&self) -> Vec<Value> {
        self.messages()
            .iter()
            .flat_map(|message| message.entries.clone())
            .map(|entry| entry[1].clone())
            .collect()
    }

    pub(crate) fn bodies(&self) -> Vec<String> {
        self.records().iter().map(|record| record["body"].as_str().unwrap_or_default().to_owned()).collect()
    }
}

/// A receiver that acknowledges everything, and counts instead of keeping.
pub(crate) struct Counter {
    pub(crate) addr: SocketAddr,
    pub(crate) records: Arc<AtomicUsize>,
}

pub(crate) fn acknowledge_all() -> Counter {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (addr, records) = (listener.local_addr().unwrap(), Arc::<AtomicUsize>::default());
    let counted = Arc::clone(&records);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            while let Ok(message) = rmpv::decode::read_value(&mut reader) {
                let size = usize::try_from(message[2]["size"].as_u64().unwrap()).unwrap();
                counted.fetch_add(size, Ordering::SeqCst);
                send(&stream, &Value::Map(vec![(Value::from("ack"), message[2]["chunk"].clone())]));
            }
        }
    });
    Counter { addr, records }
}

fn converse(stream: &TcpStream, kept: &Mutex<Vec<Message>>, judge: impl Fn(&Message) -> Verdict) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    while let Ok(value) = rmpv::decode::read_value(&mut reader) {
        let Value::Array(parts) = &value else { panic!("no message: {value}") };
        let [tag, Value::Binary(packed), options] = &parts[..] else { panic!("no PackedForward: {value}") };
        let mut plain = Vec::new();
        match options["compressed"].as_str() {
            Some("gzip") => drop(flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut plain).unwrap()),
            other => {
                assert_eq!(other, None);
                plain.clone_from(packed);
            }
        }
        let (mut entries, mut rest) = (Vec::new(), &plain[..]);
        while !rest.is_empty() {
            entries.push(rmpv::decode::read_value(&mut rest).unwrap());
        }
        let message = Message { tag: tag.as_str().unwrap().to_owned(), entries, options: options.clone() };
        assert_eq!(message.options["size"], Value::from(message.entries.len()));
        let verdict = judge(&message);
        let ack = match verdict {
            Verdict::Ack | Verdict::AckAndClose => message.options["chunk"].clone(),
            Verdict::WrongAck | Verdict::LoseTheAck => Value::from("something else"),
        };
        if !matches!(verdict, Verdict::WrongAck) {
            kept.lock().unwrap().push(message);
        }
        if matches!(verdict, Verdict::LoseTheAck) {
            return;
        }
        send(stream, &Value::Map(vec![(Value::from("ack"), ack)]));
        if matches!(verdict, Verdict::AckAndClose) {
            return;
        }
    }
}

fn send(mut stream: &TcpStream, value: &Value) {
    let mut bytes = Vec::new();
    rmpv::encode::write_value(&mut bytes, value).unwrap();
    // In two parts, so that an answer is not taken for whole before it is.
    let (first, second) = bytes.split_at(bytes.len() / 2);
    drop(stream.write_all(first).and_then(|()| stream.write_all(second)));
}

/// The receiver's side of the handshake; true where the client knows the key.
fn greet(stream: &TcpStream, key: &str) -> bool {
    let nonce = b"a nonce of 16 by".as_slice();
    let options = vec![
        (Value::from("nonce"), Value::Binary(nonce.to_vec())),
        (Value::from("auth"), Value::from("")),
        (Value::from("keepalive"), Value::from(true)),
    ];
    send(stream, &Value::Array(vec![Value::from("HELO"), Value::Map(options)]));
    let Ok(ping) = rmpv::decode::read_value(&mut stream.try_clone().unwrap()) else { return false };
    let bytes = |at: usize| match &ping[at] {
        Value::Binary(bytes) => bytes.clone(),
        other => other.as_str().unwrap().as_bytes().to_vec(),
    };
    let digest = |hostname: &[u8]| {
        let hash = Sha512::digest([&bytes(2), hostname, nonce, key.as_bytes()].concat());
        hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let known = bytes(0) == b"PING" && bytes(3) == digest(&bytes(1)).as_bytes();
    let reason = if known { "" } else { "shared_key mismatch" };
    let reply = ["PONG".into(), known.into(), reason.into(), "server".into(), digest(b"server").into()];
    send(stream, &Value::Array(reply.to_vec()));
    known
}

#[test]
fn forward_wire() {
    for compression in ["none", "gzip"] {
        let (room, receiver) = (Room::new(), Receiver::start());
        let line = r#"{"timestamp":"2026-11-23T18:02:03.123456Z","level":"warn","n":200,"neg":-70000,"big":5000000000,"huge":18446744073709551615,"f":0.5,"t":true,"z":null,"s":"a\"\u00e9","list":[1,["x"]],"map":{"k":"v"}}"#;
        write(&room.log("a.log"), format!("{line}\nplain\n").as_bytes());
        write(&room.log("a.log"), b"caf\xe9\n");
        let more = ["--label", "service.name=web", "--compression", compression];
        let _agent = room.agent(&receiver.sink(), &more);
        wait_until("all arrive", || receiver.records().len() == 3);
        let message = receiver.messages()[0].clone();
        assert_eq!(message.tag, "web.access");
        let chunk = STANDARD.decode(message.options["chunk"].as_str().unwrap()).unwrap();
        assert_eq!(chunk.len(), 16, "Base64 of 128 bits, as the protocol says");
        let at = humantime::parse_rfc3339("2026-11-23T18:02:03.123456Z").unwrap();
        let at = at.duration_since(std::time::UNIX_EPOCH).unwrap();
        let seconds = u32::try_from(at.as_secs()).unwrap().to_be_bytes();
        let expected = [seconds, at.subsec_nanos().to_be_bytes()].concat();
        assert_eq!(message.entries[0][0], Value::Ext(0, expected));
        let records = receiver.records();
        let record = &records[0];
        assert_eq!(record["severity_text"], Value::from("warn"));
        assert_eq!(record["severity_number"], Value::from(13));
        assert_eq!(record["timestamp"], Value::from("2026-11-23T18:02:03.123456Z"));
        let attributes = &record["attributes"];
        for (name, value) in [
            ("n", Value::from(200)),
            ("neg", Value::from(-70_000)),
            ("big", Value::from(5_000_000_000_i64)),
            ("huge", Value::from(u64::MAX)),
            ("f", Value::from(0.5)),
            ("t", Value::from(true)),
            ("z", Value::Nil),
            ("s", Value::from("a\"\u{e9}")),
        ] {
            assert_eq!(attributes[name], value, "{name}");
        }
        assert_eq!(attributes["list"], Value::Array(vec![1.into(), Value::Array(vec!["x".into()])]));
        assert_eq!(attributes["map"]["k"], Value::from("v"));
        assert_eq!(record["resource"]["service.name"], Value::from("web"));
        assert_eq!(record["log.file.path"], Value::from(room.log("a.log").to_str().unwrap()));
        assert!(record["id"].as_str().is_some_and(|id| id.ends_with(":0")));
        assert_eq!(records[1]["body"], Value::from("plain"));
        assert_eq!(records[2]["body"], Value::Binary(b"caf\xe9".to_vec()));
    }
}

#[test]
fn forward_acks() {
    let receiver = Receiver::that(None, |count| match count {
        0 => Verdict::LoseTheAck,
        1 => Verdict::WrongAck,
        _ => Verdict::Ack,
    });
    let room = Room::new();
    write_numbers(&mut append(&room.log("a.log")), 0..10);
    let mut agent = room.agent(&receiver.sink(), &[]);
    wait_until("it comes again", || receiver.messages().len() == 2);
    let messages = receiver.messages();
    assert_eq!(messages[0].options["chunk"], messages[1].options["chunk"], "the same id");
    assert_eq!(messages[0].entries, messages[1].entries);
    write_numbers(&mut append(&room.log("a.log")), 10..20);
    wait_until("the next arrive", || receiver.bodies().len() == 30);
    assert!(agent.terminate().success());
}

#[test]
fn an_event_time_beyond_32_bits_is_replaced_by_that_of_reading() {
    let (room, receiver) = (Room::new(), Receiver::start());
    // The last second that the protocol can say, the one after it, and a mistake of a unit.
    let stated = ["2106-02-07T06:28:15.5Z", "2106-02-07T06:28:16Z", "9999-01-01T00:00:00Z"];
    for time in stated {
        write(&room.log("a.log"), format!("{{\"time\":\"{time}\"}}\n"));
    }
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let before = now();
    let _agent = room.agent(&receiver.sink(), &[]);
    wait_until("they arrive", || receiver.records().len() == 3);
    let entries: Vec<_> = receiver.messages().into_iter().flat_map(|message| message.entries).collect();
    let seconds = |entry: &Value| {
        let (kind, bytes) = entry[0].as_ext().unwrap();
        assert_eq!((kind, bytes.len()), (0, 8));
        u64::from(u32::from_be_bytes(bytes[..4].try_into().unwrap()))
    };
    assert_eq!(seconds(&entries[0]), u64::from(u32::MAX));
    for (entry, stated) in entries.iter().zip(stated).skip(1) {
        assert!((before..=now()).contains(&seconds(entry)), "the time of reading: {entry}");
        assert_eq!(entry[1]["timestamp"], Value::from(stated), "what the line states is not lost");
    }
}

#[test]
fn forward_to_a_receiver_that_closes_what_is_idle() {
    let receiver = Receiver::that(None, |_| Verdict::AckAndClose);
    let room = Room::new();
    let mut file = append(&room.log("a.log"));
    let agent = room.agent(&receiver.sink(), &[]);
    for number in 0..5 {
        write_numbers(&mut file, number..=number);
        wait_until("it arrives", || receiver.bodies().len() == number + 1);
        wait_until("it is closed", || receiver.closed.load(Ordering::SeqCst) == number + 1);
    }
    assert!(metric(&agent, "log_agent_delivery_retries_total") < 0.5, "that is no failure");
}

#[test]
fn forward_shared_key() {
    let receiver = Receiver::that(Some("a key"), |_| Verdict::Ack);
    let room = Room::new();
    write(&room.path("right"), "a key\n");
    write(&room.path("wrong"), "another\n");
    write(&room.log("a.log"), "line 0\n");
    let flag = "--forward-shared-key-file";
    let agent = room.agent(&receiver.sink(), &[flag, room.path("wrong").to_str().unwrap()]);
    agent.event("it is refused", |event| {
        event["reason"].as_str().is_some_and(|reason| reason.contains("shared_key mismatch"))
    });
    assert!(receiver.messages().is_empty());
    drop(agent);
    let _agent = room.agent(&receiver.sink(), &[flag, room.path("right").to_str().unwrap()]);
    wait_until("it arrives", || receiver.bodies() == ["line 0"]);
}
