//! Who starts before whom, and who stops after whom.

use testkit::wait_until;
use verify::engine::{Engine, Name};

use crate::processes::{Processes, pid_of, said_of};

/// Server first, log agent last: the last request's line is at the sink.
#[test]
fn pod_shutdown_order() {
    let pod = Processes::start(&[]);
    assert_eq!(pod.get("/?the-last-request").unwrap().status(), 200);
    assert!(pod.stop().success());

    let stderr = pod.stderr();
    let stopped = |name: Name| {
        let stopped = |line| said_of(line, name.as_str()) == Some("stopped: exit status: 0");
        stderr
            .lines()
            .position(stopped)
            .unwrap_or_else(|| panic!("{} has not stopped:\n{stderr}", name.as_str()))
    };
    assert!(stopped(Name::WebServer) < stopped(Name::FilePuller), "{stderr}");
    assert!(stopped(Name::FilePuller) < stopped(Name::LogAgent), "{stderr}");

    let records = pod.shipped().unwrap();
    let last = records.iter().filter(|record| record["attributes"]["url.query"] == "the-last-request");
    assert_eq!(last.count(), 1, "{stderr}");
}

/// Classic containers have no order: the server starts before the first content, says so, and serves it without a restart.
#[test]
fn cold_start_order() {
    let pod = Processes::start_without_content_manager(&["--sidecars", "classic"]);
    wait_until("the server answers without content", || pod.get("/").is_ok());
    let answer = pod.get("/").unwrap();
    assert_eq!((answer.status(), answer.header("retry-after").is_some()), (503, true));
    assert_eq!(pod.get("/info").unwrap().status(), 200);
    assert_eq!(pod.get_inside(9877, "/readyz").unwrap().status(), 503);
    let pid = pid_of(&pod, Name::WebServer);

    pod.start_content_manager().unwrap();
    pod.wait_until_it_serves();
    wait_until("the server is ready", || pod.get_inside(9877, "/readyz").unwrap().status() == 200);
    assert_eq!(pid_of(&pod, Name::WebServer), pid, "it was restarted");
    assert!(pod.stop().success());
}

/// Native sidecars: the server is not even started before the first release is published.
#[test]
fn native_start_order() {
    let pod = Processes::start_without_content_manager(&[]);
    wait_until("the puller has failed once", || pod.stderr().contains("WARN"));
    assert_eq!(pod.pid(Name::WebServer), None, "{}", pod.stderr());
    // A person is told what the Pod waits for.
    let waits = |line: &str| said_of(line, "web-server") == Some("waits until file-puller is ready");
    wait_until("it says what it waits for", || pod.stderr().lines().any(waits));
    let why = |line: &str| {
        said_of(line, "file-puller").is_some_and(|text| text.starts_with("not ready: no release"))
    };
    wait_until("it says why", || pod.stderr().lines().any(why));
    pod.start_content_manager().unwrap();
    pod.wait_until_it_serves();
    assert!(pod.stop().success());
}

/// A request is under way when the Pod is told to stop. Its line is written after the answer.
fn stopped_during_a_request(args: &[&str]) -> (usize, usize, std::time::Duration) {
    let pod = Processes::start(&[&["--enable-faults"], args].concat());
    assert_eq!(testkit::http::request(pod.addr(9877), "POST", "/faults/delayed", &[]).status(), 200);
    let began = std::time::Instant::now();
    std::thread::scope(|scope| {
        let request = scope.spawn(|| pod.get("/?the-last-request").unwrap().status());
        wait_until("the request is under way", || {
            pod.get_inside(9877, "/status").is_ok_and(|answer| answer.json()["requests_in_flight"] == 1)
        });
        assert!(pod.stop().success());
        assert_eq!(request.join().unwrap(), 200, "the server finishes what it has begun");
    });
    let log = std::fs::read_to_string(pod.dir.path().join("volumes/logs/access.log")).unwrap();
    let written = log.lines().filter(|line| line.contains("the-last-request")).count();
    let shipped = pod.shipped().unwrap();
    let shipped = shipped.iter().filter(|record| record["attributes"]["url.query"] == "the-last-request");
    (written, shipped.count(), began.elapsed())
}

/// Native sidecars outlive the server; classic ones leave at the same signal, and the line comes after them.
#[test]
fn the_last_line_is_shipped_by_a_native_sidecar_and_lost_by_a_classic_one() {
    let (written, shipped, _) = stopped_during_a_request(&[]);
    assert_eq!((written, shipped), (1, 1));
    let (written, shipped, _) = stopped_during_a_request(&["--sidecars", "classic"]);
    assert_eq!((written, shipped), (1, 0));
}

/// The remedy of classic Pods is a guess: long enough for this request, and waited for at every stop.
#[test]
fn a_pre_stop_hook_that_sleeps_keeps_the_last_line_and_delays_every_stop() {
    let (written, shipped, took) =
        stopped_during_a_request(&["--sidecars", "classic", "--agent-pre-stop", "3s"]);
    assert_eq!((written, shipped), (1, 1));
    assert!(took >= std::time::Duration::from_secs(3), "{took:?}");
}

/// A bar of a timeline's picture.
#[derive(Debug)]
struct Bar {
    container: String,
    phase: String,
    from: f64,
    to: f64,
}

fn bars(picture: &str) -> Vec<Bar> {
    let attribute = |line: &str, name: &str| {
        let (_, rest) = line.split_once(&format!(" {name}=\""))?;
        rest.split_once('"').map(|(value, _)| value.to_owned())
    };
    let bars = picture.lines().filter_map(|line| {
        let class = attribute(line.strip_prefix("<rect")?, "class")?;
        let (phase, container) = class.split_once(' ')?;
        let number = |name| attribute(line, name).and_then(|value| value.parse::<f64>().ok());
        let from = number("x")?;
        Some(Bar { container: container.into(), phase: phase.into(), from, to: from + number("width")? })
    });
    bars.collect()
}

/// Where a container's phase begins and ends in the picture.
fn stretch(bars: &[Bar], container: Name, phase: &str) -> (f64, f64) {
    let bar = bars.iter().find(|bar| bar.container == container.as_str() && bar.phase == phase);
    let bar = bar.unwrap_or_else(|| panic!("{} is never {phase}: {bars:?}", container.as_str()));
    (bar.from, bar.to)
}

fn shows_native_order(picture: &str) {
    let bars = bars(picture);
    let start = |name| stretch(&bars, name, "starting").0;
    assert!(start(Name::LogAgent) < start(Name::FilePuller), "{bars:?}");
    assert!(start(Name::FilePuller) < start(Name::WebServer), "{bars:?}");
    // The shortest bar is drawn wider than it is, so that it shows.
    let drain = |name| stretch(&bars, name, "draining");
    assert!(drain(Name::WebServer).1 <= drain(Name::FilePuller).0 + 1.5, "{bars:?}");
    assert!(drain(Name::FilePuller).0 <= drain(Name::LogAgent).0, "{bars:?}");
}

fn shows_no_order(picture: &str) {
    let bars = bars(picture);
    let drain = |name| stretch(&bars, name, "draining");
    let server = drain(Name::WebServer);
    for sidecar in [Name::FilePuller, Name::LogAgent] {
        assert!(
            (drain(sidecar).0 - server.0).abs() * 10.0 < server.1 - server.0,
            "at the same moment: {bars:?}"
        );
        assert!(drain(sidecar).1 < server.1, "the server outlives it: {bars:?}");
    }
}

/// The documents' pictures of start and stop are what `--timeline` draws. With `PICTURES=write` these tests write them.
fn the_picture_shows(kind: &str, shows: impl Fn(&str)) {
    let drawn = tempfile::tempdir().unwrap();
    let picture = drawn.path().join("timeline.svg");
    stopped_during_a_request(&["--sidecars", kind, "--timeline", picture.to_str().unwrap()]);
    let images = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/content/img");
    let committed = images.join(format!("{kind}.svg"));
    if std::env::var_os("PICTURES").is_some() {
        std::fs::copy(&picture, &committed).unwrap();
    }
    shows(&std::fs::read_to_string(picture).unwrap());
    shows(&std::fs::read_to_string(committed).unwrap());
}

#[test]
fn the_documents_picture_of_a_native_pod_is_drawn_by_the_demo() {
    the_picture_shows("native", shows_native_order);
}

#[test]
fn the_documents_picture_of_a_classic_pod_is_drawn_by_the_demo() {
    the_picture_shows("classic", shows_no_order);
}
