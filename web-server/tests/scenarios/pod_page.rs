//! The Pod page's data: one snapshot, a stream of them, and the one thing that can be asked for.

use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use testkit::http::{Connection, request};
use testkit::process::run;
use testkit::{Answer, Upstream, eventually, wait_until};

use crate::support::{BINARY, Server, Volume};

/// How late a container that is gone may be seen to be.
const TWO_SECONDS: Duration = Duration::from_secs(2);

/// file-puller and log-agent, as far as the page is concerned.
struct Neighbours {
    puller: Upstream,
    agent: Upstream,
}

impl Neighbours {
    fn start() -> Self {
        Self {
            puller: Upstream::start(answer(puller("one"))),
            agent: Upstream::start(answer(agent("one", 0))),
        }
    }

    fn serve(&self, volume: &Volume, args: &[&str]) -> Server {
        self.serve_with(volume, args, &[])
    }

    fn serve_with(&self, volume: &Volume, args: &[&str], variables: &[(&str, &str)]) -> Server {
        let (puller, agent) = (self.puller.addr().to_string(), self.agent.addr().to_string());
        let mut all = vec!["--pod-page", "--pod-page-puller", &puller, "--pod-page-agent", &agent];
        all.extend(args);
        Server::start_with(&volume.root(), &all, variables)
    }
}

fn answer(status: Value) -> impl Fn(&testkit::http::Message) -> Answer + Send + Sync + 'static {
    move |_| Answer::new(200, status.to_string())
}

fn common(name: &str, started: &str) -> Value {
    json!({"name": name, "version": "1.2.3", "started": started, "ready": true, "draining": false})
}

fn puller(started: &str) -> Value {
    let mut status = common("file-puller", started);
    status["source"] = "http://content.example/manifest.json".into();
    status["publication"] = json!({"release": "one", "files": 3, "fetched_files": 2});
    status["next_sync"] = "2026-11-24T00:00:10Z".into();
    status["last_sync"] =
        json!({"ended": "2026-11-24T00:00:00Z", "outcome": {"result": "failed", "error": "no route"}});
    status["failures_in_a_row"] = 2.into();
    status
}

fn agent(started: &str, shipped: u64) -> Value {
    let mut status = common("log-agent", started);
    let sink = json!({"sink": "stdout:", "confirmed_records": shipped, "unconfirmed_bytes": 0, "lost_bytes": 7,
                      "failing": null});
    status["sinks"] = json!([sink]);
    status
}

/// A browser's `EventSource`, without coming back.
struct Stream {
    reader: BufReader<TcpStream>,
}

/// One event: its name and its data.
type Event = (String, String);

impl Stream {
    fn open(addr: SocketAddr) -> Self {
        let mut connection = Connection::open(addr);
        connection.send("GET /pod/events HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        Self { reader: BufReader::new(connection.stream().try_clone().unwrap()) }
    }

    /// The next line, from within whatever chunk.
    fn line(&mut self) -> String {
        let mut line = String::new();
        assert!(self.reader.read_line(&mut line).unwrap() > 0, "the stream was cut");
        line.trim_end().to_owned()
    }

    fn head(&mut self) -> Vec<String> {
        let lines = std::iter::repeat_with(|| self.line());
        lines.take_while(|line| !line.is_empty()).collect()
    }

    /// The next event; none at the end of an orderly stream. Chunks begin and end where events do, so their sizes are lines between them.
    fn event(&mut self) -> Option<Event> {
        let mut name = String::new();
        loop {
            let line = self.line();
            if let Some(given) = line.strip_prefix("event: ") {
                given.clone_into(&mut name);
            } else if let Some(data) = line.strip_prefix("data: ") {
                return Some((name, data.to_owned()));
            } else if line == "0" {
                return None;
            } else {
                let size = line.is_empty() || u64::from_str_radix(&line, 16).is_ok();
                assert!(size || line == "retry: 1000", "what is {line:?}?");
            }
        }
    }

    /// The next snapshot for which `matches` holds.
    fn snapshot(&mut self, matches: impl Fn(&Value) -> bool) -> Value {
        loop {
            let (name, data) = self.event().expect("the stream goes on");
            if name == "snapshot" {
                let snapshot = serde_json::from_str(&data).unwrap();
                if matches(&snapshot) {
                    return snapshot;
                }
            }
        }
    }
}

const PULLER: usize = 0;
const AGENT: usize = 2;

fn state(snapshot: &Value, container: usize) -> &str {
    snapshot["containers"][container]["state"].as_str().unwrap()
}

#[test]
fn the_pod_page_is_off_unless_it_is_asked_for() {
    let volume = Volume::with(&[("pod", "content")]);
    let server = Server::start(&volume.root(), &[]);
    assert_eq!(server.get("/pod").text(), "content");
    assert_eq!(server.get("/pod/events").status(), 404);
    assert_eq!(server.request("POST", "/pod/sync", &[]).status(), 405);
    for wrong in [["--pod-page-actions", "--log-level=info"], ["--pod-page", "--manifest"]] {
        let root = volume.root();
        let (code, _, stderr) = run(BINARY, ["--root", root.to_str().unwrap()].iter().chain(&wrong));
        assert_eq!(code, 64, "{stderr}");
    }
}

#[test]
fn a_snapshot_tells_of_all_three_containers() {
    let (neighbours, volume) = (Neighbours::start(), Volume::with(&[("pod", "content"), ("a.html", "a")]));
    let files = tempfile::tempdir().unwrap();
    let labels = files.path().join("labels");
    std::fs::write(&labels, "app=\"web<&\"\n").unwrap();
    let log = files.path().join("access.log");
    let args = ["--pod-labels-file", labels.to_str().unwrap(), "--access-log", log.to_str().unwrap()];
    let variables = [
        ("POD_NAME", "web-0"),
        ("POD_NAMESPACE", "default"),
        ("POD_UID", ""),
        ("NODE_NAME", "n1"),
        ("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
    ];
    let server = neighbours.serve_with(&volume, &args, &variables);
    assert_eq!(server.get("/a.html").status(), 200);
    assert_eq!(server.get("/missing").status(), 404);
    wait_until("both lines are in the log", || lines(&log) == 2);

    let answer = server.get("/pod");
    assert_eq!(answer.header("content-type"), Some("application/json"), "no content shadows it");
    assert_eq!((answer.header("cache-control"), answer.header("vary")), (Some("no-store"), Some("accept")));
    let snapshot = answer.json();
    assert_eq!(snapshot["format"], "pod-page/1");
    assert!(snapshot["at"].as_str().unwrap().ends_with('Z'));
    assert_eq!(snapshot["actions"], json!([]));
    let pod = json!({"name": "web-0", "namespace": "default", "uid": null, "node": "n1",
                     "labels": {"app": "web<&"}, "annotations": {}});
    assert_eq!(snapshot["pod"], pod);
    let names: Vec<_> = (0..3).map(|at| snapshot["containers"][at]["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["file-puller", "web-server", "log-agent"]);
    let expected = json!({"name": "file-puller", "admin": neighbours.puller.addr().port(), "state": "up",
                          "reason": null, "version": "1.2.3", "started": "one", "ready": true, "draining": false,
                          "restarts": 0, "probes": null});
    assert_eq!(snapshot["containers"][PULLER], expected);
    assert_eq!(snapshot["containers"][1]["admin"], server.admin.port());
    let release = &snapshot["release"];
    assert_eq!(
        (&release["id"], &release["files"], &release["fetched_files"]),
        (&"one".into(), &2.into(), &2.into())
    );
    let sync = json!({"source": "http://content.example/manifest.json", "next": "2026-11-24T00:00:10Z", "waiting": false,
                      "last": "2026-11-24T00:00:00Z", "result": "failed", "error": "no route", "failures": 2});
    assert_eq!(snapshot["sync"], sync);
    let classes = &snapshot["requests"]["classes"];
    assert_eq!((&classes["2xx"], &classes["4xx"], &classes["5xx"]), (&1.into(), &1.into(), &0.into()));
    let sink =
        json!({"name": "stdout:", "shipped": null, "waiting_bytes": 0, "lost_bytes": 7, "failing": null});
    assert_eq!(snapshot["log"]["sinks"], json!([sink]));
    assert_eq!(snapshot["runs_on"], "kubernetes");
    assert!(snapshot["containers"][1]["probes"]["asked"].is_u64());

    // A browser without JavaScript.
    let page =
        server.request("GET", "/pod", &[("Accept", "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8")]);
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(page.text().contains("app=web&lt;&amp;"), "{}", page.text());
    let head = server.request("HEAD", "/pod/events", &[]);
    assert_eq!((head.status(), head.header("content-type")), (200, Some("text/event-stream")));
    assert_eq!(server.request("POST", "/pod", &[]).status(), 405);
}

#[test]
fn a_pod_without_content_is_shown_too() {
    let (neighbours, volume) = (Neighbours::start(), Volume::new());
    let server = neighbours.serve(&volume, &[]);
    let snapshot = server.get("/pod").json();
    assert_eq!(snapshot["release"], Value::Null);
    assert_eq!(snapshot["containers"][1]["ready"], false);
    assert_eq!(snapshot["runs_on"], Value::Null);
    assert!(snapshot["containers"][1]["reason"].as_str().unwrap().contains("no content yet"));
}

#[test]
fn what_a_release_is_compared_with_is_taken_from_the_memory_budget() {
    let names: Vec<String> = (0..50).map(|number| format!("{number}-{}", "n".repeat(200))).collect();
    let files: Vec<_> = names.iter().map(|name| (name.as_str(), "")).collect();
    let (neighbours, volume) = (Neighbours::start(), Volume::with(&files));
    let server = neighbours.serve(&volume, &[]);
    let used = || server.metric("memory_used_bytes{use=\"index\"}");
    let before = used();
    assert_eq!(server.get("/pod").json()["release"]["files"], 50);
    let more = used() - before;
    assert!(more > 50 * 200 && more < 50 * 400, "{more} bytes");
}

#[test]
fn a_stream_begins_with_a_snapshot_and_tells_what_happens() {
    let (neighbours, volume) = (Neighbours::start(), Volume::with(&[("a.html", "a"), ("b.html", "b")]));
    let server = neighbours.serve(&volume, &[]);
    let mut stream = Stream::open(server.addr);
    let head = stream.head();
    for line in ["HTTP/1.1 200 OK", "content-type: text/event-stream", "cache-control: no-store"] {
        assert!(head.iter().any(|given| given.eq_ignore_ascii_case(line)), "{line}: {head:?}");
    }
    let (name, time) = stream.event().unwrap();
    assert_eq!((name.as_str(), time.as_bytes().last()), ("beat", Some(&b'Z')));
    let (name, _) = stream.event().unwrap();
    assert_eq!(name, "snapshot");

    volume.publish("two", &[("a.html", "other"), ("c.html", "c")]);
    let snapshot = stream.snapshot(|snapshot| snapshot["release"]["id"] == "two");
    let changes = json!({"added": ["c.html"], "changed": ["a.html"], "removed": ["b.html"], "count": 3});
    assert_eq!(snapshot["release"]["changes"], changes);
    assert_eq!(snapshot["release"]["fetched_files"], Value::Null, "that was another release");

    neighbours.agent.answer(answer(agent("one", 5)));
    stream.snapshot(|snapshot| snapshot["log"]["sinks"][0]["shipped"] == 5);
    // Whoever has nothing to tell says that it is there.
    let quiet = eventually("a beat", || stream.event().filter(|(name, _)| name == "beat"));
    assert!(quiet.1 > time);
}

#[test]
fn a_hundred_viewers_cost_one_poll_of_the_neighbours() {
    let (neighbours, volume) = (Neighbours::start(), Volume::with(&[("a.html", "a")]));
    // On several threads, each with a runtime of its own, they still have one poller.
    let server = neighbours.serve(&volume, &["--threads", "3"]);
    assert!(neighbours.puller.requests().is_empty(), "nobody watches");
    let mut viewers: Vec<_> = (0..100).map(|_| Stream::open(server.addr)).collect();
    for viewer in &mut viewers {
        viewer.head();
        viewer.snapshot(|_| true);
    }
    let asked = |neighbour: &Upstream| neighbour.requests().len();
    neighbours.puller.forget();
    neighbours.agent.forget();
    let began = Instant::now();
    wait_until("five more rounds", || asked(&neighbours.puller) >= 5);
    let (took, agent) = (began.elapsed(), asked(&neighbours.agent));
    assert!(took > Duration::from_millis(1900), "five rounds took {took:?}");
    assert!((4..=6).contains(&agent), "{agent} at the one, five at the other");

    drop(viewers);
    let last = std::cell::Cell::new((0, Instant::now()));
    wait_until("nobody is asked any more", || {
        let now = asked(&neighbours.puller);
        if now != last.get().0 {
            last.set((now, Instant::now()));
        }
        last.get().1.elapsed() > Duration::from_millis(1500)
    });
    // Whoever comes now is told what is so now.
    neighbours.puller.answer(answer(puller("two")));
    let snapshot = server.get("/pod").json();
    assert_eq!((&snapshot["containers"][PULLER]["restarts"], state(&snapshot, PULLER)), (&1.into(), "up"));
}

#[test]
fn a_container_that_is_gone_looks_down_within_two_seconds() {
    let Neighbours { puller: puller_up, agent: agent_up } = Neighbours::start();
    let (addr, volume) = (puller_up.addr(), Volume::with(&[("a.html", "a")]));
    let neighbours = Neighbours { puller: puller_up, agent: agent_up };
    let server = neighbours.serve(&volume, &[]);
    let mut stream = Stream::open(server.addr);
    stream.head();
    stream.snapshot(|snapshot| state(snapshot, PULLER) == "up" && state(snapshot, AGENT) == "up");

    let Neighbours { puller: puller_up, agent: agent_up } = neighbours;
    drop(puller_up);
    let began = Instant::now();
    let snapshot = stream.snapshot(|snapshot| state(snapshot, PULLER) == "down");
    let took = began.elapsed();
    assert!(took < TWO_SECONDS, "gone, and seen after {took:?}");
    assert_eq!(state(&snapshot, AGENT), "up");
    assert_eq!(snapshot["containers"][PULLER]["reason"], "nothing listens on its port");
    assert_eq!(snapshot["containers"][PULLER]["version"], "1.2.3", "what it said last stays");

    let (done, wait) = mpsc::channel::<()>();
    let wait = Arc::new(std::sync::Mutex::new(wait));
    agent_up.answer(move |_| {
        let wait = Arc::clone(&wait);
        Answer::raw(move |_| wait.lock().unwrap().recv().unwrap_or_default())
    });
    let began = Instant::now();
    let snapshot = stream.snapshot(|snapshot| state(snapshot, AGENT) == "down");
    let took = began.elapsed();
    assert!(took < TWO_SECONDS, "hung, and seen after {took:?}");
    assert_eq!(snapshot["containers"][AGENT]["reason"], "no answer within 1s");
    drop(done);

    // Started again: another process, and so a restart.
    let _puller = Upstream::start_on(addr, answer(puller("two")));
    let snapshot = stream.snapshot(|snapshot| state(snapshot, PULLER) == "up");
    assert_eq!(snapshot["containers"][PULLER]["restarts"], 1);
    // And what is not a container is none, however it answers.
    agent_up.answer(|_| Answer::new(200, "x".repeat(2 * 1024 * 1024)));
    stream.snapshot(|snapshot| {
        state(snapshot, AGENT) == "down" && snapshot["containers"][AGENT]["reason"] != "no answer within 1s"
    });
}

fn lines(log: &std::path::Path) -> usize {
    std::fs::read_to_string(log).unwrap_or_default().lines().count()
}

/// What log-agent says when it has confirmed so many bytes of the log, and refused so many lines.
fn agent_at(started: &str, confirmed: u64, refused: u64) -> Value {
    let mut status = agent(started, 0);
    status["sinks"][0]["refused_records"] = refused.into();
    status["files"] =
        json!([{"path": "/elsewhere/access.log", "named": true, "confirmed": {"stdout:": confirmed}}]);
    status
}

#[test]
fn lines_are_counted_in_the_log_whatever_has_been_restarted() {
    let (neighbours, volume) = (Neighbours::start(), Volume::with(&[("a.html", "a")]));
    let logs = tempfile::tempdir().unwrap();
    let log = logs.path().join("access.log");
    let args = ["--access-log", log.to_str().unwrap()];
    let server = neighbours.serve(&volume, &args);
    for _ in 0..3 {
        server.get("/a.html");
    }
    wait_until("three lines are in the log", || lines(&log) == 3);
    let all = std::fs::metadata(&log).unwrap().len();
    neighbours.agent.answer(answer(agent_at("one", all / 3, 0)));
    let figures = |snapshot: &Value| {
        let log = &snapshot["log"];
        let figure = |value: &Value| value.as_u64().unwrap();
        (figure(&log["written"]), figure(&log["sinks"][0]["shipped"]), figure(&log["waiting"]))
    };
    assert_eq!(figures(&server.get("/pod").json()), (3, 1, 2));
    // Another log-agent has confirmed nothing yet, and knows from its checkpoint what the one before did.
    neighbours.agent.answer(answer(agent_at("two", all / 3, 0)));
    let mut stream = Stream::open(server.addr);
    stream.head();
    let snapshot = stream.snapshot(|snapshot| snapshot["containers"][AGENT]["started"] == "two");
    let (written, shipped, waiting) = figures(&snapshot);
    assert_eq!((shipped, written - waiting), (1, 1));
    assert_eq!(snapshot["log"]["sinks"][0]["lost_bytes"], 14, "what the one before has lost is lost");
    // The sink has refused one: it is not under way, and not at the sink.
    neighbours.agent.answer(answer(agent_at("two", all, 1)));
    stream.snapshot(|snapshot| snapshot["log"]["sinks"][0]["shipped"] == 2);
    drop((stream, server));

    let server = neighbours.serve(&volume, &args);
    let written = lines(&log) as u64;
    assert!(written > 3);
    let snapshot = server.get("/pod").json();
    assert_eq!(figures(&snapshot), (written, 2, written - 3), "of the log's life, not of the server's");
    assert!(snapshot["requests"]["classes"]["2xx"].as_u64().unwrap() >= 3);
}

#[test]
fn a_drain_ends_the_streams_and_is_not_held_up() {
    let (neighbours, volume) = (Neighbours::start(), Volume::with(&[("a.html", "a")]));
    let logs = tempfile::tempdir().unwrap();
    let log = logs.path().join("access.log");
    let mut server =
        neighbours.serve(&volume, &["--access-log", log.to_str().unwrap(), "--shutdown-timeout", "20s"]);
    let mut stream = Stream::open(server.addr);
    stream.head();
    stream.snapshot(|_| true);
    let began = Instant::now();
    server.process.signal(Signal::TERM);
    while stream.event().is_some() {}
    assert_eq!(server.process.wait().code(), Some(0), "{}", server.process.stderr());
    let took = began.elapsed();
    assert!(took < Duration::from_secs(5), "the drain took {took:?}");
    assert!(!server.process.stderr().contains("cut what was not finished"));
    // One line for the whole stream, with all that was sent.
    let text = std::fs::read_to_string(log).unwrap();
    let line: Value = serde_json::from_str(text.trim_end()).unwrap();
    assert_eq!(line["url.path"], "/pod/events");
    assert!(line["http.response.body.size"].as_u64().unwrap() > 500, "{line}");
}

/// Nothing is kept for a viewer that does not read: it misses snapshots, and goes when its deadline has come.
#[test]
fn a_slow_viewer_costs_no_memory_and_no_other_viewer() {
    let (neighbours, volume) = (Neighbours::start(), Volume::with(&[("a.html", "a")]));
    let server = neighbours.serve(&volume, &["--send-timeout", "1s"]);
    let rounds = AtomicUsize::new(0);
    neighbours.agent.answer(move |_| {
        let mut status = agent("one", rounds.fetch_add(1, Ordering::Relaxed) as u64);
        status["sinks"][0]["sink"] = "x".repeat(900_000).into();
        Answer::new(200, status.to_string())
    });
    let mut slow = Connection::open(server.addr);
    slow.send("GET /pod/events HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    let mut keen = Stream::open(server.addr);
    keen.head();
    let before = server.process.resident_bytes();
    let overdue = || {
        let metrics = request(server.admin, "GET", "/metrics", &[]);
        metrics.text().contains("web_server_connections_overdue_total{waited_for=\"send\"} 1")
    };
    wait_until("the slow one is shown the door, and the keen one reads on", || {
        keen.snapshot(|_| true);
        overdue()
    });
    let grown = server.process.resident_bytes().saturating_sub(before);
    assert!(grown < 24 * 1024 * 1024, "{grown} bytes more");
}

#[test]
fn sync_now_is_for_the_page_on_this_machine() {
    let (neighbours, volume) = (Neighbours::start(), Volume::with(&[("a.html", "a")]));
    let off = neighbours.serve(&volume, &[]);
    let origin = format!("http://{}", off.addr);
    assert_eq!(off.request("POST", "/pod/sync", &[("Origin", &origin)]).status(), 404);

    let on = neighbours.serve(&volume, &["--pod-page-actions"]);
    assert_eq!(on.get("/pod").json()["actions"], json!(["sync"]));
    neighbours.puller.forget();
    let origin = format!("http://{}", on.addr);
    assert_eq!(on.request("GET", "/pod/sync", &[("Origin", &origin)]).status(), 405);
    assert_eq!(on.request("POST", "/pod/sync", &[]).status(), 403);
    assert_eq!(on.request("POST", "/pod/sync", &[("Origin", "http://evil.example")]).status(), 403);
    let asked = || {
        let requests = neighbours.puller.requests();
        requests.into_iter().filter(|request| request.start.starts_with("POST /sync ")).count()
    };
    assert_eq!(asked(), 0);
    neighbours.puller.answer(|request| {
        let sync = request.start.starts_with("POST /sync ");
        Answer::new(if sync { 502 } else { 200 }, r#"{"result": "failed"}"#)
    });
    let answer = on.request("POST", "/pod/sync", &[("Origin", &origin)]);
    assert_eq!((answer.status(), &answer.json()["result"]), (502, &"failed".into()));
    assert_eq!(asked(), 1);

    // A proxy on this machine passes the requests of others on, and what it cannot read.
    let trusting = neighbours.serve(&volume, &["--pod-page-actions", "--trusted-proxies", "127.0.0.1"]);
    let origin = format!("http://{}", trusting.addr);
    for (field, value) in
        [("X-Forwarded-For", "192.0.2.1,"), ("X-Forwarded-For", "unknown"), ("Forwarded", "for=x")]
    {
        let fields = [("Origin", &*origin), ("X-Forwarded-For", "192.0.2.1"), (field, value)];
        assert_eq!(trusting.request("POST", "/pod/sync", &fields).status(), 403, "{field}: {value}");
    }
    assert_eq!(trusting.request("POST", "/pod/sync", &[("Origin", &origin)]).status(), 502);

    // Opened from another machine, which is what an address that is not loopback stands for.
    let Some(elsewhere) = other_address() else { return };
    let mut command = std::process::Command::new(BINARY);
    command.arg("--root").arg(volume.root()).args([
        "--listen",
        "0.0.0.0:0",
        "--pod-page",
        "--pod-page-actions",
    ]);
    let open = Server::of(testkit::Process::start_command(command));
    let addr = SocketAddr::new(elsewhere, open.addr.port());
    let refused = request(addr, "POST", "/pod/sync", &[("Origin", &format!("http://{addr}"))]);
    assert_eq!(refused.status(), 403);
    assert!(refused.text().contains("only from this machine"), "{}", refused.text());
}

/// This machine's address as others see it, where it has one. Connecting a UDP socket sends nothing.
fn other_address() -> Option<std::net::IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let addr = socket.local_addr().ok()?.ip();
    (!addr.is_loopback() && !addr.is_unspecified()).then_some(addr)
}
