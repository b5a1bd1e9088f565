//! Ports of a Pod's localhost on ours, through `kubectl port-forward`: opened when first needed, and again whenever one is lost.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Stdio};
use std::sync::Arc;

use parking_lot::Mutex;
use testkit::http::Message;

use super::Context;
use crate::engine::command::{end, run_prepared, text};

/// Some ports of the Pod that a selector finds.
#[derive(Debug)]
pub(super) struct Forward {
    context: Context,
    namespace: String,
    selector: &'static str,
    ports: Vec<u16>,
    open: Mutex<Option<Arc<Open>>>,
}

/// A running `kubectl port-forward`, ended with its last user.
#[derive(Debug)]
struct Open {
    child: Child,
    addrs: BTreeMap<u16, SocketAddr>,
}

impl Forward {
    pub(super) fn new(context: &Context, namespace: &str, selector: &'static str, ports: &[u16]) -> Self {
        Self {
            context: context.clone(),
            namespace: namespace.to_owned(),
            selector,
            ports: ports.to_vec(),
            open: Mutex::default(),
        }
    }

    /// Asks a port. Where that fails, the tunnel is given up: the Pod may be another one by now, and a tunnel that has lost its
    /// Pod does not come back.
    pub(super) fn ask(
        &self,
        port: u16,
        question: impl FnOnce(SocketAddr) -> io::Result<Message>,
    ) -> io::Result<Message> {
        let open = self.opened()?;
        let addr =
            open.addrs.get(&port).ok_or_else(|| io::Error::other(format!("{port} is not forwarded")))?;
        let answer = question(*addr);
        if answer.is_err() {
            let mut current = self.open.lock();
            // Another thread may have noticed earlier, and opened a new one.
            if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, &open)) {
                *current = None;
            }
        }
        answer
    }

    pub(super) fn close(&self) {
        *self.open.lock() = None;
    }

    fn opened(&self) -> io::Result<Arc<Open>> {
        let mut current = self.open.lock();
        if let Some(open) = &*current {
            return Ok(Arc::clone(open));
        }
        let open = Arc::new(self.start()?);
        *current = Some(Arc::clone(&open));
        Ok(open)
    }

    fn start(&self) -> io::Result<Open> {
        let running = "--field-selector=status.phase=Running";
        let find = ["get", "pods", "--selector", self.selector, running, "--output=name"];
        let mut pods = self.context.kubectl();
        let pods = text(&run_prepared(pods.args(["--namespace", &self.namespace]).args(find))?);
        let pod = pods.lines().next_back().ok_or_else(|| io::Error::other("there is no running Pod"))?;

        let mut command = self.context.kubectl();
        command.args(["--namespace", &self.namespace, "port-forward", "--address=127.0.0.1", pod]);
        command.args(self.ports.iter().map(|port| format!(":{port}")));
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let stdout = child.stdout.take();
        let mut open = Open { child, addrs: BTreeMap::new() };
        let mut lines = stdout.map(BufReader::new).into_iter().flat_map(BufReader::lines);
        while open.addrs.len() < self.ports.len() {
            let line =
                lines.next().ok_or_else(|| io::Error::other(format!("cannot forward ports of {pod}")))??;
            open.addrs.extend(forwarded(&line));
        }
        // It goes on printing a line for each connection; a pipe without a reader would stop it.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(open)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Reads `Forwarding from 127.0.0.1:40123 -> 9876`.
fn forwarded(line: &str) -> Option<(u16, SocketAddr)> {
    let (addr, port) = line.strip_prefix("Forwarding from ")?.split_once(" -> ")?;
    Some((port.trim().parse().ok()?, addr.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forwarded_port_as_kubectl_says_it() {
        let expected = (9876, "127.0.0.1:40123".parse().unwrap());
        assert_eq!(forwarded("Forwarding from 127.0.0.1:40123 -> 9876"), Some(expected));
        assert_eq!(forwarded("Handling connection for 40123"), None);
    }
}
