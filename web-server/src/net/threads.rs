//! Several threads: each has a listener and an event loop of its own, and the kernel deals connections out among them.
//!
//! What a request needs is shared and only read, so that threads have nothing to wait for one another. A connection
//! stays with the thread that accepted it.

use std::io;
use std::sync::Arc;

use lifecycle::exit::{Exit, Failure};
use tokio::net::TcpListener;
use tokio::sync::Barrier;

use crate::net::server::Server;

/// Serves on all listeners until the shutdown begins and none accepts any more; connections may still be open then. The first
/// listener is served here, each other one on a thread that goes on until its connections have ended.
///
/// # Errors
/// Exit code 74 where there are no more threads to be had.
pub(crate) async fn serve(server: &Arc<Server>, listeners: Vec<TcpListener>) -> Result<(), Failure> {
    let over = Arc::new(Barrier::new(listeners.len()));
    let mut listeners = listeners.into_iter();
    let Some(first) = listeners.next() else { return Ok(()) };
    for (number, listener) in listeners.enumerate() {
        let (server, over) = (Arc::clone(server), Arc::clone(&over));
        spawn(number + 2, listener, server, over).map_err(|error| {
            Failure::new(Exit::Io, format!("cannot start thread {}: {error}", number + 2))
        })?;
    }
    server.serve(first).await;
    over.wait().await;
    Ok(())
}

fn spawn(number: usize, listener: TcpListener, server: Arc<Server>, over: Arc<Barrier>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // It leaves the first thread's event loop for its own.
    let listener = listener.into_std()?;
    let listener = {
        let _inside = runtime.enter();
        TcpListener::from_std(listener)?
    };
    let work = async move {
        server.serve(listener).await;
        over.wait().await;
        server.ended().await;
    };
    std::thread::Builder::new().name(format!("serve-{number}")).spawn(move || runtime.block_on(work))?;
    Ok(())
}
