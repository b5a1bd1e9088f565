//! What web-server can be told about the live page.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Serialize;

/// Flags of web-server.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
pub struct Flags {
    /// Answers /pod and /pod/events: what the Pod's containers are doing, for the sample site's live page. Every client
    /// that reaches the content can then read the Pod's name, labels and annotations
    #[arg(long, conflicts_with = "manifest")]
    pub pod_page: bool,

    /// Lets the live page ask file-puller to sync now, where it is opened from this machine
    #[arg(long, requires = "pod_page")]
    pub pod_page_actions: bool,

    /// Where file-puller's admin port is, for the live page
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:9878")]
    pub pod_page_puller: SocketAddr,

    /// Where log-agent's admin port is, for the live page
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:9879")]
    pub pod_page_agent: SocketAddr,

    /// The Pod's labels as the downward API writes them into a volume, for the live page
    #[arg(long, value_name = "FILE")]
    pub pod_labels_file: Option<PathBuf>,

    /// The Pod's annotations, likewise
    #[arg(long, value_name = "FILE")]
    pub pod_annotations_file: Option<PathBuf>,

    /// What the Pod runs on, so that the live page names the commands that fit; Kubernetes is recognised without this flag
    #[arg(long, value_name = "PLACE")]
    pub pod_runs_on: Option<RunsOn>,

    /// What the kubelet of `cargo demo` does to the containers, for the live page; no cluster has such a file
    #[arg(long, value_name = "FILE")]
    pub pod_events_file: Option<PathBuf>,
}

/// What keeps the Pod's containers running.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum RunsOn {
    /// `cargo demo`, on bare processes
    Demo,
    /// Docker Compose
    Compose,
    /// A cluster
    Kubernetes,
}
