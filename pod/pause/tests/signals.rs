//! It waits, and ends well when it is asked to.

use rustix::process::Signal;
use testkit::Process;

#[test]
fn it_ends_at_sigterm_and_sigint_and_at_nothing_else() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut pause = Process::start_as_is(std::process::Command::new(env!("CARGO_BIN_EXE_pause")));
        testkit::wait_until("the handlers are installed", || handles(pause.id(), signal));
        pause.signal(Signal::CHILD);
        assert!(!pause.has_ended());
        pause.signal(signal);
        assert!(pause.wait().success());
    }
}

/// Whether the process catches the signal (`SigCgt` in proc_pid_status(5)).
fn handles(pid: u32, signal: Signal) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).expect("every process has it");
    let caught = u64::from_str_radix(caught.trim(), 16).expect("a bit set");
    caught & (1 << (signal.as_raw() - 1)) != 0
}
