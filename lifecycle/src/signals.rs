//! What the kubelet says to a container, and when.
//!
//! SIGTERM (the kubelet) and SIGINT (Ctrl-C) begin the drain. A second one, from a user who will not wait, aborts at
//! once. SIGHUP asks for a refresh; what that means is each container's own affair. As PID 1 a process gets no default
//! signal handling from the kernel, so all three are installed before anything else runs.

use std::io;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// What the signals have asked for so far. A test makes one with [`Signals::default`] and plays the kubelet itself.
#[derive(Debug, Clone, Default)]
pub struct Signals {
    /// Cancelled once: stop taking on work, finish what was begun.
    pub shutdown: CancellationToken,
    /// Notified on every SIGHUP; several while one is being answered count as one.
    pub hangup: Arc<Notify>,
}

impl Signals {
    /// Installs the handlers; from here on no signal ends the process without being asked twice.
    ///
    /// # Errors
    /// Where the kernel refuses a handler.
    pub fn install() -> io::Result<Self> {
        let signals = Self::default();
        let terminate = signal(SignalKind::terminate())?;
        let interrupt = signal(SignalKind::interrupt())?;
        let hangup = signal(SignalKind::hangup())?;
        tokio::spawn(signals.clone().deliver(terminate, interrupt, hangup));
        Ok(signals)
    }

    async fn deliver(self, mut terminate: Signal, mut interrupt: Signal, mut hangup: Signal) {
        loop {
            let (name, number) = tokio::select! {
                _ = terminate.recv() => ("SIGTERM", 15),
                _ = interrupt.recv() => ("SIGINT", 2),
                _ = hangup.recv() => {
                    tracing::info!("SIGHUP: refreshing");
                    self.hangup.notify_one();
                    continue;
                }
            };
            if self.shutdown.is_cancelled() {
                tracing::warn!(signal = name, "asked twice: aborting without finishing the drain");
                // 128 + n is how shells and kubelets write "ended by signal n".
                std::process::exit(128 + number);
            }
            tracing::info!(signal = name, "draining; a second signal aborts");
            self.shutdown.cancel();
        }
    }
}
