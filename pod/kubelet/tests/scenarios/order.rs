//! Who starts before whom, and who stops after whom.

use testkit::wait_until;
use verify::engine::{Engine, Name};

use crate::processes::{Processes, pid_of};

/// Server first, log agent last: the last request's line is at the sink.
#[test]
fn pod_shutdown_order() {
    let pod = Processes::start(&[]);
    assert_eq!(pod.get("/?the-last-request").unwrap().status(), 200);
    assert!(pod.stop().success());

    let stderr = pod.stderr();
    let stopped = |name: Name| {
        let line = format!("{:11} | [kubelet] stopped: exit status: 0", name.as_str());
        stderr.lines().position(|given| given == line).unwrap_or_else(|| panic!("no {line:?} in\n{stderr}"))
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
    pod.start_content_manager().unwrap();
    pod.wait_until_it_serves();
    assert!(pod.stop().success());
}
