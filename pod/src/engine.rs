//! What a scenario may ask of a running Pod, whatever runs it: processes here, containers and clusters in `deploy/`.

use std::io;

use serde_json::Value;
use testkit::http::Message;

/// A container of the Pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name {
    /// Syncs the content.
    FilePuller,
    /// Serves it.
    WebServer,
    /// Ships its log.
    LogAgent,
}

impl Name {
    /// All three, in the order of a request's way through them.
    pub const ALL: [Self; 3] = [Self::FilePuller, Self::WebServer, Self::LogAgent];

    /// As folders, images and manifests spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FilePuller => "file-puller",
            Self::WebServer => "web-server",
            Self::LogAgent => "log-agent",
        }
    }

    /// Its admin port, by the contract.
    pub fn admin_port(self) -> u16 {
        match self {
            Self::WebServer => 9877,
            Self::FilePuller => 9878,
            Self::LogAgent => 9879,
        }
    }
}

/// A running Pod with its content manager outside and its log sink behind it.
pub trait Engine: Sync {
    /// `GET` on the published port, as a user of the Pod sees it.
    ///
    /// # Errors
    /// Where no whole answer comes back.
    fn get(&self, path: &str) -> io::Result<Message>;

    /// `GET` over the Pod's localhost, as a neighbour in it sees it.
    ///
    /// # Errors
    /// Where no whole answer comes back.
    fn get_inside(&self, port: u16, path: &str) -> io::Result<Message>;

    /// Puts a file at the content manager, in one step.
    ///
    /// # Errors
    /// Where it cannot be written.
    fn put_content(&self, path: &str, body: &str) -> io::Result<()>;

    /// Ends a container with SIGKILL.
    ///
    /// # Errors
    /// Where there is none.
    fn kill(&self, name: Name) -> io::Result<()>;

    /// Takes the content manager away.
    ///
    /// # Errors
    /// Where that cannot be done.
    fn stop_content_manager(&self) -> io::Result<()>;

    /// Brings it back.
    ///
    /// # Errors
    /// Where that cannot be done.
    fn start_content_manager(&self) -> io::Result<()>;

    /// Every record that the log sink has got so far.
    ///
    /// # Errors
    /// Where the sink cannot be asked.
    fn shipped(&self) -> io::Result<Vec<Value>>;
}
