//! Blocking work, off the event loop.

use tokio::task::spawn_blocking;

/// Runs `work` on a thread of the runtime's blocking pool and returns what it returns.
///
/// There is no error to handle. A panic ends the process in the panic hook ([`crate::exit::on_panic`]), so it never
/// reaches the caller. The only other cause is a runtime that shuts down, which drops the caller as well: the future then
/// stays pending.
pub async fn blocking<T, F>(work: F) -> T
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    match spawn_blocking(work).await {
        Ok(done) => done,
        Err(_shutting_down) => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn the_value_comes_back_from_another_thread() {
        let here = std::thread::current().id();
        let there = super::blocking(move || std::thread::current().id()).await;
        assert_ne!(here, there);
    }
}
