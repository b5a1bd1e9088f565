//! `cargo demo` as a person meets it: what it says, what it refuses, what it leaves behind.

use std::ffi::OsStr;
use std::io::{PipeReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::ffi::OsStrExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use testkit::http::try_get;
use testkit::process::{cpu_time, is_gone, resident_bytes};
use testkit::terminal::{AtTerminal, Stdout};
use testkit::{eventually, wait_until};
use verify::engine::{Engine, Name};

use crate::processes::{Demo, Processes, demo, fresh_address, pid_of, said_of};

#[test]
fn serves_the_sample_site_and_says_where() {
    let dir = tempfile::tempdir().unwrap();
    let ip = fresh_address();
    let mut process = Demo::start(demo(ip, &dir.path().join("volumes")));
    wait_until("it says where", || process.stderr().contains(&format!("the Pod is up: http://{ip}:9876/")));
    let page = testkit::http::get(std::net::SocketAddr::new(ip.into(), 9876), "/");
    assert!(page.status() == 200 && page.text().contains("<title>"), "{page:?}");
    process.signal(Signal::INT);
    assert!(process.wait().success());
    assert!(dir.path().join("volumes/content/current/index.html").is_file(), "--keep-dir keeps the volumes");
}

/// The banner, an edit's few lines, and records that are counted in one line which changes: all within 80 columns.
#[test]
fn a_person_at_a_terminal_reads_short_lines() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("site")).unwrap();
    std::fs::write(dir.path().join("site/index.html"), "<p>hello").unwrap();
    let ip = fresh_address();
    let mut command = demo(ip, &dir.path().join("volumes"));
    command.args(["--content", "site"]).current_dir(dir.path());
    let terminal = AtTerminal::start(command, 80, Stdout::Terminal);
    for text in ["live.html", "the Pod is up", "edit site/index.html, and reload", "kill -9 ", "kill -USR1 "]
    {
        terminal.shows(text);
    }
    for container in ["log-agent", "file-puller", "web-server"] {
        terminal.shows(&format!("  {container:15} pid "));
    }
    for _ in 0..3 {
        testkit::http::get(std::net::SocketAddr::new(ip.into(), 9876), "/");
    }
    terminal.shows("shipped 3 lines");
    terminal.signal(Signal::INT);
    let (code, screen) = terminal.end();
    assert_eq!(code, Some(0), "{screen:#?}");
    assert!(screen.iter().all(|line| !line.contains("request.id")), "no record is shown: {screen:#?}");
    let counters = screen.iter().filter(|line| line.contains("shipped ")).count();
    assert_eq!(counters, 1, "{screen:#?}");
    // A longer line would have been broken by the terminal, and its rest would be without time and name.
    let banner = screen.iter().position(|line| line.starts_with("  stop ")).expect("a banner");
    for line in &screen[banner + 1..] {
        assert!(line.trim_start().starts_with(|first: char| first.is_ascii_digit()), "{screen:#?}");
    }
}

/// `--records` shows them, one a line; `--verbose` all that the containers say.
#[test]
fn a_terminal_shows_records_and_all_that_is_said_where_it_is_told_to() {
    let dir = tempfile::tempdir().unwrap();
    let ip = fresh_address();
    let mut command = demo(ip, &dir.path().join("volumes"));
    command.args(["--records", "--verbose"]);
    let terminal = AtTerminal::start(command, 1000, Stdout::Terminal);
    terminal.shows("the Pod is up");
    testkit::http::get(std::net::SocketAddr::new(ip.into(), 9876), "/");
    terminal.shows("\"request.id\":");
    // Of no interest to who looks at the Pod as a whole.
    terminal.shows("listener=\"admin\"");
    assert!(terminal.screen().iter().all(|line| !line.contains("shipped ")), "{:#?}", terminal.screen());
    terminal.signal(Signal::INT);
    assert_eq!(terminal.end().0, Some(0));
}

#[test]
fn a_taken_port_is_named_with_the_flag_that_moves_it() {
    let dir = tempfile::tempdir().unwrap();
    let ip = fresh_address();
    let _taken = TcpListener::bind((ip, 9878)).unwrap();
    let mut process = Demo::start(demo(ip, dir.path()));
    assert_eq!(process.wait().code(), Some(69));
    let stderr = process.stderr();
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.contains(&format!("{ip}:9878")) && stderr.contains("--port"), "{stderr}");
}

#[test]
fn a_wrong_flag_is_one_line_and_exit_code_64() {
    let (code, _, stderr) = testkit::process::run(env!("CARGO_BIN_EXE_kubelet"), ["--prot", "1"]);
    assert_eq!((code, stderr.lines().count()), (64, 1), "{stderr}");
    assert!(stderr.contains("--port"), "{stderr}");
}

#[test]
fn an_address_that_is_taken_is_named() {
    let (code, _, stderr) = testkit::process::run(env!("CARGO_BIN_EXE_kubelet"), ["--ip", "192.0.2.1"]);
    assert_eq!((code, stderr.lines().count()), (74, 1), "{stderr}");
    assert!(stderr.contains("192.0.2.1:9876") && stderr.contains("--ip"), "{stderr}");
}

/// A container that refuses its flags would refuse them forever: that ends the Pod, with the container's own reason and code.
#[test]
fn a_refused_configuration_is_no_crash_loop() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = demo(fresh_address(), dir.path());
    command.args(["--sink", "carrier-pigeon:"]);
    let mut process = Demo::start(command);
    assert_eq!(process.wait().code(), Some(64), "{}", process.stderr());
    let stderr = process.stderr();
    assert!(stderr.contains("carrier-pigeon"), "{stderr}");
    let last = stderr.lines().last().unwrap();
    assert!(last.starts_with("demo: log-agent refuses its configuration: "), "{stderr}");
    assert!(last.contains("carrier-pigeon"), "the last line repeats the reason: {stderr}");
}

#[test]
fn missing_content_is_named() {
    let (code, _, stderr) =
        testkit::process::run(env!("CARGO_BIN_EXE_kubelet"), ["--content", "/no/such/folder"]);
    assert_eq!((code, stderr.lines().count()), (78, 1), "{stderr}");
    assert!(stderr.contains("/no/such/folder"), "{stderr}");
}

/// The second death within ten minutes waits ten seconds, as in a cluster; the first does not wait.
#[test]
fn a_dead_container_is_started_again_with_the_kubelets_back_off() {
    let pod = Processes::start(&[]);
    let first = pid_of(&pod, Name::FilePuller);
    pod.kill(Name::FilePuller).unwrap();
    eventually("it is started again", || pod.pid(Name::FilePuller).filter(|pid| *pid != first));
    pod.kill(Name::FilePuller).unwrap();
    wait_until("it is held back", || pod.stderr().contains("back-off: starting again in 10 s"));
    assert!(pod.stop().success(), "a container in back-off does not hold up the stop");
}

/// A second Ctrl-C does not wait, and leaves no container behind.
#[test]
fn an_impatient_ctrl_c_leaves_nothing_behind() {
    let pod = Processes::start(&["--grace", "60s"]);
    let pid = pid_of(&pod, Name::LogAgent);
    // A container that cannot stop: it gets no time to run at all.
    let stopped = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(stopped, Signal::STOP).unwrap();
    pod.demo.lock().unwrap().signal(Signal::INT);
    wait_until("the drain has come to the log agent", || {
        pod.stderr()
            .lines()
            .any(|line| said_of(line, "file-puller").is_some_and(|text| text.starts_with("stopped")))
    });
    pod.stop();
    assert!(is_gone(pid.unsigned_abs()), "log-agent outlived the Pod");
}

/// A Pod that runs here already is recognised on its port, and the way out is named.
#[test]
fn a_pod_that_runs_already_is_recognised_on_its_port() {
    let pod = Processes::start(&[]);
    let dir = tempfile::tempdir().unwrap();
    let mut second = Demo::start(demo(pod.ip, dir.path()));
    assert_eq!(second.wait().code(), Some(69));
    let stderr = second.stderr();
    let own = pod.demo.lock().unwrap().id();
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.contains("a Pod runs here for ") && stderr.contains(&format!("`kill {own}`")), "{stderr}");
    assert!(pod.stop().success());
}

/// Two Pods in one folder would publish and log over each other.
#[test]
fn a_second_demo_in_the_same_folder_is_refused() {
    let pod = Processes::start(&[]);
    let dir = pod.dir.path().join("volumes").canonicalize().unwrap();
    let mut second = Demo::start(demo(fresh_address(), &dir));
    assert_eq!(second.wait().code(), Some(69));
    let stderr = second.stderr();
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    let keep = format!("--keep-dir={}: another demo", dir.display());
    assert!(stderr.contains(&keep), "{stderr}");
    assert!(pod.stop().success());
}

/// To log-agent, a comma separates patterns, and a bracket begins a set of characters.
#[test]
fn records_are_shipped_from_a_folder_whose_name_is_no_plain_pattern() {
    let dir = tempfile::tempdir().unwrap();
    let ip = fresh_address();
    let mut process = Demo::start(demo(ip, &dir.path().join("Uni, Semester [3]/what? *")));
    wait_until("it is up", || process.stderr().contains("the Pod is up"));
    testkit::http::get(std::net::SocketAddr::new(ip.into(), 9876), "/");
    wait_until("a record", || process.stdout_lines().iter().any(|record| record.contains("request.id")));
    process.signal(Signal::INT);
    assert!(process.wait().success());
}

/// A pipe whose reader hangs is as a terminal after Ctrl-S: the Pod serves and restarts what dies, and a second Ctrl-C ends it.
#[test]
fn a_terminal_that_takes_nothing_holds_up_neither_the_pod_nor_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let ip = fresh_address();
    let (mut process, _reader) = start_unread(demo(ip, &dir.path().join("volumes")));
    let site = std::net::SocketAddr::new(ip.into(), 9876);
    let serves = || try_get(site, "/").is_ok_and(|answer| answer.status() == 200);
    wait_until("the Pod serves", serves);
    process.signal(Signal::INT);
    wait_until("web-server has stopped", || TcpStream::connect(site).is_err());
    process.signal(Signal::INT);
    let status = process.wait();
    assert!(status.success(), "{status}");
}

/// The reason for the end is one more line that such a terminal does not take.
#[test]
fn a_terminal_that_takes_nothing_does_not_hold_up_an_end_that_fails() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = demo(fresh_address(), &dir.path().join("volumes"));
    command.args(["--sink", "carrier-pigeon:"]);
    let (mut process, _reader) = start_unread(command);
    assert_eq!(process.wait().code(), Some(64));
}

/// The records that log-agent has handed on before it stopped are whole, and all of them are there.
#[test]
fn a_reader_that_is_slow_gets_every_record() {
    let dir = tempfile::tempdir().unwrap();
    let ip = fresh_address();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut command = demo(ip, &dir.path().join("volumes"));
    command.stdout(writer).stderr(Stdio::null());
    let mut process = Demo::start_unread(command);
    let site = SocketAddr::new(ip.into(), 9876);
    wait_until("the Pod serves", || try_get(site, "/").is_ok());
    // More than the pipe has room for, and less than log-agent can get rid of.
    let path = format!("/{}", "x".repeat(2_000));
    for _ in 0..45 {
        testkit::http::get(site, &path);
    }
    process.signal(Signal::INT);
    let (mut records, mut buffer) = (Vec::new(), [0; 8 << 10]);
    while let read @ 1.. = reader.read(&mut buffer).unwrap() {
        records.extend(&buffer[..read]);
        // Not a wait for something to happen: this is how slow the reader is.
        std::thread::sleep(Duration::from_millis(250));
    }
    assert!(process.wait().success());
    let records = String::from_utf8(records).unwrap();
    assert_eq!(records.lines().filter(|record| record.contains(&path) && record.ends_with('}')).count(), 45);
}

/// Starts a demo whose output is a pipe that is full, and stays so as long as the reader is not read from.
fn start_unread(mut command: Command) -> (Demo, PipeReader) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    // To the last byte.
    for filler in [&[b' '; 4096][..], b" "] {
        while writer.write(filler).is_ok() {}
    }
    rustix::io::ioctl_fionbio(&writer, false).unwrap();
    command.stdout(writer.try_clone().unwrap()).stderr(writer);
    (Demo::start_unread(command), reader)
}

/// `nohup cargo demo &` outlives its terminal. The content manager that `--source` names is not this demo's to stop.
#[test]
fn a_demo_that_is_to_ignore_hangups_ignores_them() {
    let dir = tempfile::tempdir().unwrap();
    let kubelet = demo(fresh_address(), &dir.path().join("volumes"));
    let mut command = Command::new("nohup");
    command.arg(kubelet.get_program()).args(kubelet.get_args()).args(["--source", "http://127.0.0.1:1/m"]);
    command.args(["--sidecars", "classic"]);
    let mut process = Demo::start(command);
    wait_until("it is up", || process.stderr().contains("the Pod is up"));
    process.signal(Signal::HUP);
    // Twice, so that the hangup has certainly been seen before the later one: a Pod that stops answers no more.
    for answers in 1..=2 {
        process.signal(Signal::USR1);
        let answered = || process.stderr().matches("the content manager is another's").count() == answers;
        wait_until("the later signal is answered", answered);
    }
    assert!(!process.stderr().contains("stopping: "), "{}", process.stderr());
    process.signal(Signal::INT);
    assert!(process.wait().success());
}

#[test]
fn a_value_that_lacks_its_equals_sign_is_recognised() {
    let (code, _, stderr) = testkit::process::run(env!("CARGO_BIN_EXE_kubelet"), ["--keep-dir", "volumes"]);
    assert_eq!((code, stderr.lines().count()), (64, 1), "{stderr}");
    assert!(stderr.contains("--keep-dir=volumes"), "{stderr}");
}

/// No pattern of log-agent's can name it, so no record would be shipped.
#[test]
fn a_folder_whose_path_is_not_utf_8_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let command = demo(fresh_address(), &dir.path().join(OsStr::from_bytes(b"caf\xe9")));
    let mut process = Demo::start(command);
    assert_eq!(process.wait().code(), Some(78));
    let stderr = process.stderr();
    assert!(stderr.lines().count() == 1 && stderr.contains("/caf\u{fffd}: "), "{stderr}");
}

#[test]
fn a_file_in_the_place_of_a_folder_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a-file");
    std::fs::write(&file, "").unwrap();
    let keep = format!("--keep-dir={}", file.display());
    let content = file.display().to_string();
    let ip = format!("--ip={}", fresh_address());
    for (args, exit) in
        [(vec!["--content", &content], 78), (vec!["--binaries", &content], 78), (vec![&ip, &keep], 74)]
    {
        let (code, _, stderr) = testkit::process::run(env!("CARGO_BIN_EXE_kubelet"), &args);
        assert_eq!((code, stderr.lines().count()), (exit, 1), "{stderr}");
        assert!(stderr.contains(&content) && stderr.contains("this is a file"), "{stderr}");
    }
}

#[test]
fn a_timeline_that_cannot_be_drawn_is_refused_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("absent/timeline.svg").display().to_string();
    let ip = format!("--ip={}", fresh_address());
    let (code, _, stderr) = testkit::process::run(env!("CARGO_BIN_EXE_kubelet"), [&ip, "--timeline", &file]);
    assert_eq!((code, stderr.lines().count()), (74, 1), "{stderr}");
    assert!(stderr.contains(&format!("--timeline {file}")), "{stderr}");
}

#[test]
fn usage_is_of_the_command_that_people_type() {
    let (code, stdout, _) = testkit::process::run(env!("CARGO_BIN_EXE_kubelet"), ["--help"]);
    assert!(code == 0 && stdout.contains("Usage: cargo demo [OPTIONS]"), "{stdout}");
}

/// The content manager comes and goes at a signal; the Pod serves on.
#[test]
fn the_content_manager_goes_away_and_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let ip = fresh_address();
    let process = Demo::start(demo(ip, &dir.path().join("volumes")));
    wait_until("the Pod is up", || process.stderr().contains("the Pod is up"));
    let addr = |port| std::net::SocketAddr::new(ip.into(), port);
    process.signal(Signal::USR1);
    wait_until("it is away", || std::net::TcpStream::connect(addr(9880)).is_err());
    assert_eq!(testkit::http::get(addr(9876), "/").status(), 200);
    process.signal(Signal::USR1);
    wait_until("it is back", || std::net::TcpStream::connect(addr(9880)).is_ok());
}

/// `Never`: a container that has ended stays so, and then the Pod has completed. Its sidecars are stopped with it.
#[test]
fn a_pod_that_restarts_nothing_completes() {
    let pod = Processes::start(&["--restart-policy", "never"]);
    pod.kill(Name::WebServer).unwrap();
    let ended = pod.demo.lock().unwrap().wait();
    let stderr = pod.stderr();
    assert_eq!(ended.code(), Some(1), "a Pod that has failed: {stderr}");
    assert!(stderr.ends_with("demo: the Pod has failed: web-server ended: signal: 9 (SIGKILL)"), "{stderr}");
    assert!(stderr.contains("not started again: restart policy Never"), "{stderr}");
    assert!(stderr.contains("the Pod has failed"), "{stderr}");
    assert!(
        stderr.lines().any(|line| said_of(line, "log-agent") == Some("stopped: exit status: 0")),
        "{stderr}"
    );
}

/// A container that ends well is not started again with `OnFailure`, and one that is killed is.
#[test]
fn on_failure_starts_again_what_has_failed() {
    let pod = Processes::start(&["--restart-policy", "OnFailure"]);
    let first = pid_of(&pod, Name::WebServer);
    pod.kill(Name::WebServer).unwrap();
    let second = eventually("it is started again", || pod.pid(Name::WebServer).filter(|pid| *pid != first));
    let second = rustix::process::Pid::from_raw(second).unwrap();
    wait_until("it is ready", || pod.get_inside(9877, "/readyz").is_ok_and(|answer| answer.status() == 200));
    rustix::process::kill_process(second, Signal::TERM).unwrap();
    let ended = pod.demo.lock().unwrap().wait();
    let stderr = pod.stderr();
    assert_eq!(ended.code(), Some(0), "a Pod that has succeeded: {stderr}");
    assert!(stderr.contains("not started again: restart policy OnFailure"), "{stderr}");
    assert!(stderr.contains("the Pod has succeeded"), "{stderr}");
}

/// The same events for a person, for the live page, and as a picture.
#[test]
fn events_are_in_a_file_and_the_timeline_is_drawn_at_the_end() {
    let pictures = tempfile::tempdir().unwrap();
    let picture = pictures.path().join("timeline.svg");
    let pod = Processes::start(&["--timeline", picture.to_str().unwrap()]);
    let file = pod.dir.path().join("volumes/podinfo/events.json");
    let pid = pid_of(&pod, Name::FilePuller);
    pod.kill(Name::FilePuller).unwrap();
    let events = || {
        let document: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        assert_eq!(document["format"], "kubelet-events/1");
        document["events"].as_array().unwrap().clone()
    };
    let is =
        |event: &serde_json::Value, what: &str| event["container"] == "file-puller" && event["event"] == what;
    wait_until("its death is in the file", || {
        events().iter().any(|event| is(event, "ended") && event["signal"] == 9)
    });
    assert!(events().iter().any(|event| is(event, "started") && event["pid"] == pid));
    assert!(pod.stop().success());
    let picture = std::fs::read_to_string(picture).unwrap();
    for name in Name::ALL {
        assert!(picture.contains(name.as_str()), "{picture}");
    }
    assert!(picture.contains("SIGKILL"), "{picture}");
}

/// The bar for release builds is 30 MiB; debug builds are larger, and a leak is larger than both. How much of a processor
/// the idle Pod uses is measured by hand: `cargo test -p kubelet -- --ignored`.
#[test]
fn idle_it_is_small() {
    let pod = Processes::start(&[]);
    let pids = Name::ALL.map(|name| pid_of(&pod, name).unsigned_abs());
    let resident: u64 = pids.into_iter().map(resident_bytes).sum();
    assert!(resident < 60 << 20, "the three take {resident} bytes");
}

/// A measurement, for a quiet machine.
#[test]
#[ignore = "a measurement, for a quiet machine"]
fn idle_it_uses_no_processor() {
    let pod = Processes::start(&[]);
    let pids = Name::ALL.map(|name| pid_of(&pod, name).unsigned_abs());
    let before: Duration = pids.into_iter().map(cpu_time).sum();
    // Not a wait for something to happen: this is how long the measurement takes.
    std::thread::sleep(Duration::from_secs(3));
    let used = pids.into_iter().map(cpu_time).sum::<Duration>().checked_sub(before).unwrap();
    assert!(used <= Duration::from_millis(150), "idle for 3 s, the three used {used:?}");
}
