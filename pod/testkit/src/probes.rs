//! How long a server keeps a probe waiting by its own doing.
//!
//! A machine that runs many tests at once makes every thread wait. That part of a probe's time does not count:
//!
//! - for as long as the server's thread, or the probe's, is ready to run and gets no processor, as the kernel counts it, and
//! - for as long as a byte is under way over loopback, to a thread that does nothing but send it back, and is not back yet.
//!
//! On a quiet machine both are next to nothing.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::Process;
use crate::http::get;
use crate::wait::wait_until;

/// Between two bytes.
const PAUSE: Duration = Duration::from_millis(2);

/// Probes of one server.
#[derive(Debug)]
pub struct Probes {
    admin: SocketAddr,
    thread: PathBuf,
    control: Control,
    slowest: Duration,
}

impl Probes {
    /// Of the server with this admin port, which is answered by the thread with this directory in `/proc`.
    pub fn of(admin: SocketAddr, thread: PathBuf) -> Self {
        Self { admin, thread, control: Control::start(), slowest: Duration::ZERO }
    }

    /// Of a process that answers in its main thread.
    #[track_caller]
    pub fn of_process(process: &Process) -> Self {
        let id = process.id();
        Self::of(process.addr("admin"), format!("/proc/{id}/task/{id}").into())
    }

    /// Asks whether the server is alive.
    #[track_caller]
    pub fn ask(&mut self) {
        let queued = || queued(Path::new("/proc/thread-self")) + queued(&self.thread);
        let (before, asked) = (queued(), Instant::now());
        assert_eq!(get(self.admin, "/livez").status(), 200);
        let (answered, after) = (Instant::now(), queued());
        let machine = after.saturating_sub(before) + self.control.waited_between(asked, answered);
        self.slowest = self.slowest.max((answered - asked).saturating_sub(machine));
    }

    /// Asks again and again until the condition holds.
    #[track_caller]
    pub fn until(&mut self, what: &str, mut condition: impl FnMut() -> bool) {
        wait_until(what, || {
            self.ask();
            condition()
        });
    }

    /// How long the slowest answer took, without what the machine made it wait.
    pub fn slowest(&self) -> Duration {
        self.slowest
    }
}

/// How long a thread has waited for a processor so far; nothing where the kernel does not count it.
fn queued(thread: &Path) -> Duration {
    let text = fs::read_to_string(thread.join("schedstat")).unwrap_or_default();
    let nanoseconds = text.split(' ').nth(1).and_then(|number| number.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or_default())
}

/// A thread that sends bytes to another one, which sends each of them back, and notes when.
#[derive(Debug)]
struct Control {
    trips: Arc<Mutex<Vec<(Instant, Instant)>>>,
    is_over: Arc<AtomicBool>,
}

impl Control {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let near = TcpStream::connect(listener.local_addr().expect("an address")).expect("it listens");
        let (far, _) = listener.accept().expect("it is connected");
        let control = Self { trips: Arc::default(), is_over: Arc::default() };
        let (trips, is_over) = (Arc::clone(&control.trips), Arc::clone(&control.is_over));
        // Each ends when the other one does.
        std::thread::spawn(move || drop(send_back(far)));
        std::thread::spawn(move || drop(send(near, &trips, &is_over)));
        control
    }

    /// For how long of this time a byte was under way. Forgets what was before.
    fn waited_between(&self, from: Instant, to: Instant) -> Duration {
        wait_until("the byte is back", || self.trips.lock().last().is_some_and(|(_, end)| *end >= to));
        let mut trips = self.trips.lock();
        trips.retain(|(_, end)| *end > from);
        within(&trips, from, to)
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
    }
}

fn send_back(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    loop {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        stream.write_all(&byte)?;
    }
}

fn send(
    mut stream: TcpStream,
    trips: &Mutex<Vec<(Instant, Instant)>>,
    is_over: &AtomicBool,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    while !is_over.load(Ordering::SeqCst) {
        let due = Instant::now() + PAUSE;
        std::thread::sleep(PAUSE);
        stream.write_all(&[0])?;
        stream.read_exact(&mut [0])?;
        trips.lock().push((due, Instant::now()));
    }
    Ok(())
}

/// How much of this time lies between the instants of these pairs.
fn within(pairs: &[(Instant, Instant)], from: Instant, to: Instant) -> Duration {
    pairs.iter().map(|(begin, end)| (*end).min(to).saturating_duration_since((*begin).max(from))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Answer, Upstream};

    #[test]
    fn a_server_that_makes_a_probe_wait_is_found_out() {
        let server = Upstream::start(|_| Answer::new(200, ""));
        // Its threads live for one answer each.
        let mut probes = Probes::of(server.addr(), "/proc/thread-self".into());
        (0..10).for_each(|_| probes.ask());
        let quick = probes.slowest();
        server.answer(|_| {
            std::thread::sleep(Duration::from_secs(1));
            Answer::new(200, "")
        });
        probes.ask();
        server.answer(|_| Answer::new(200, ""));
        probes.ask();
        let slow = probes.slowest();
        assert!(
            quick < Duration::from_millis(100) && slow > Duration::from_millis(500),
            "{quick:?} {slow:?}"
        );
    }

    #[test]
    fn what_lies_partly_within_a_time_counts_in_part() {
        let begin = Instant::now();
        let at = |millis| begin + Duration::from_millis(millis);
        let late = [(at(0), at(10)), (at(12), at(30)), (at(32), at(3_600_000))];
        assert_eq!(within(&late, at(5), at(40)), Duration::from_millis(5 + 18 + 8));
        assert_eq!(within(&late, at(50), at(60)), Duration::from_millis(10));
        assert_eq!(within(&late, at(30), at(32)), Duration::ZERO);
    }
}
