//! `cargo demo` as a person meets it: what it says, what it refuses, what it leaves behind.

use std::net::TcpListener;
use std::time::Duration;

use rustix::process::Signal;
use testkit::process::resident_bytes;
use testkit::{eventually, wait_until};
use verify::engine::{Engine, Name};

use crate::processes::{Demo, Processes, demo, fresh_address, pid_of};

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
fn an_address_of_somebody_else_is_named() {
    let (code, _, stderr) = testkit::process::run(env!("CARGO_BIN_EXE_kubelet"), ["--ip", "192.0.2.1"]);
    assert_eq!((code, stderr.lines().count()), (74, 1), "{stderr}");
    assert!(stderr.contains("192.0.2.1:9876") && stderr.contains("--ip"), "{stderr}");
}

/// A container that refuses its flags would refuse them for ever: that ends the Pod, with the container's own reason and code.
#[test]
fn a_refused_configuration_is_no_crash_loop() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = demo(fresh_address(), dir.path());
    command.args(["--sink", "carrier-pigeon:"]);
    let mut process = Demo::start(command);
    assert_eq!(process.wait().code(), Some(64), "{}", process.stderr());
    let stderr = process.stderr();
    assert!(stderr.contains("carrier-pigeon"), "{stderr}");
    assert!(stderr.lines().last().is_some_and(|line| line.contains("log-agent refuses")), "{stderr}");
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
        pod.stderr().contains(&format!("{:11} | [kubelet] stopped", "file-puller"))
    });
    pod.stop();
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "log-agent outlived the Pod");
}

/// The bar for release builds is 30 MiB and nothing measurable; debug builds are larger and slower, and a leak or a busy
/// loop is larger and slower than both.
#[test]
fn idle_it_is_small() {
    let pod = Processes::start(&[]);
    let pids = Name::ALL.map(|name| pid_of(&pod, name).unsigned_abs());
    let resident: u64 = pids.into_iter().map(resident_bytes).sum();
    assert!(resident < 60 << 20, "the three take {resident} bytes");
    let before: u64 = pids.into_iter().map(cpu_ticks).sum();
    // Not a wait for something to happen: this is how long the measurement takes.
    std::thread::sleep(Duration::from_secs(3));
    let used = pids.into_iter().map(cpu_ticks).sum::<u64>() - before;
    assert!(used <= 15, "idle for 3 s, the three used {used} hundredths of a second");
}

/// Time on a processor, user and system, in hundredths of a second (`utime` and `stime` in proc_pid_stat(5)).
fn cpu_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let after_name = stat.rsplit(')').next().unwrap();
    after_name.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}
