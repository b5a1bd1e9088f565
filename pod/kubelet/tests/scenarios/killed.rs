//! `kill -9` of the kubelet gives it no time to stop its containers: what becomes of them.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};
use testkit::process::{children, is_gone};
use testkit::wait_until;

use crate::processes::{Demo, binaries, fresh_address};

/// A demo that keeps nothing, with its temporary folder in `temporary`.
fn demo(ip: Ipv4Addr, temporary: &Path) -> Demo {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubelet"));
    command.arg("--binaries").arg(binaries()).arg(format!("--ip={ip}")).env("TMPDIR", temporary);
    Demo::start(command)
}

fn until_it_is_up(process: &Demo) {
    wait_until("the Pod is up", || process.stderr().contains("the Pod is up"));
}

/// The process ids that it has said.
fn containers(process: &Demo) -> Vec<u32> {
    let stderr = process.stderr();
    let pids = stderr.lines().filter_map(|line| line.split_once("started, pid "));
    let pids: Vec<u32> = pids.map(|(_, pid)| pid.parse().unwrap()).collect();
    assert_eq!(pids.len(), 4, "{stderr}");
    pids
}

/// The one process that the demo has started besides its containers.
fn watcher(process: &Demo) -> u32 {
    let containers = containers(process);
    let others = children(process.id()).into_iter().filter(|pid| !containers.contains(pid));
    let [watcher] = others.collect::<Vec<_>>()[..] else { panic!("not one watcher") };
    watcher
}

fn wait_until_gone(pids: Vec<u32>) {
    for pid in pids {
        wait_until("a container is gone", || is_gone(pid));
    }
}

/// They end all the same, and so does the folder. `pkill -9 kubelet` and `pkill -9 -f kubelet` do not reach the watcher.
#[test]
fn a_killed_demo_leaves_nothing_behind() {
    let temporary = tempfile::tempdir().unwrap();
    let mut process = demo(fresh_address(), temporary.path());
    until_it_is_up(&process);
    let pids = containers(&process);
    let watcher = watcher(&process);
    for file in ["comm", "cmdline"] {
        let name = std::fs::read_to_string(format!("/proc/{watcher}/{file}")).unwrap();
        assert!(name.starts_with("pod-watcher") && !name.contains("kubelet"), "{file}: {name}");
    }
    process.kill();
    wait_until_gone(pids);
    wait_until("its folder is gone", || std::fs::read_dir(temporary.path()).unwrap().next().is_none());
}

/// The message has the command that ends what is left, and the command is right, whatever is in the temporary folder and in its name.
#[test]
fn what_is_left_of_a_demo_that_was_killed_with_its_watcher_is_found_and_can_be_ended() {
    let temporary = tempfile::Builder::new().prefix("o'brien").tempdir().unwrap();
    let ip = fresh_address();
    let mut process = demo(ip, temporary.path());
    // As another user can make them.
    let others = [format!("pod-{}-", process.id()), format!("pod-{}-zzzzzz", process.id())];
    for other in &others {
        std::fs::create_dir(temporary.path().join(other)).unwrap();
    }
    until_it_is_up(&process);
    let pids = containers(&process);
    let watcher = i32::try_from(watcher(&process)).unwrap();
    kill_process(Pid::from_raw(watcher).unwrap(), Signal::KILL).unwrap();
    process.kill();

    let mut second = demo(ip, temporary.path());
    assert_eq!(second.wait().code(), Some(69));
    let stderr = second.stderr();
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    let told = format!("a killed demo, pid {}, has left its Pod behind", process.id());
    assert!(stderr.contains(&told), "{stderr}");
    let command = stderr.split('`').nth(1).unwrap();
    assert!(Command::new("sh").args(["-c", command]).status().unwrap().success(), "{command}");
    wait_until_gone(pids);
    let left = std::fs::read_dir(temporary.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let left: BTreeSet<_> = left.collect();
    assert_eq!(left, others.map(OsString::from).into(), "{command}");
    drop(TcpListener::bind((ip, 9876)).unwrap());
}
