//! The data of the live page: what the three containers of this Pod are doing, for people who study it.
//!
//! The page itself is content like any other, and arrives as such. What it shows comes from here: `GET /pod` is a snapshot, as
//! JSON or, for browsers without JavaScript, as HTML; `GET /pod/events` sends one whenever something has changed. web-server
//! answers these paths with `--pod-page`, and is seen through one trait, [`LocalServer`]. This crate alone knows that the
//! other two containers are called file-puller and log-agent: it asks them over the shared localhost, and only while a
//! browser watches.
//!
//! In the order in which the data flows:
//!
//! - `flags`: what web-server can be told about the page
//! - `client`: the admin port of another container, and how it is asked
//! - `status`: what it answers
//! - `peer`: what was seen of it so far
//! - `info`, `kubelet`: what the kubelet says about the Pod, and what it does to the containers
//! - `local`: the server that answers for the page
//! - `log_files`: the access log, counted where it lies
//! - `poller`: all containers, asked again and again
//! - `snapshot`: what was found
//! - `hub`: the subscribers, and the frame that they were sent last
//! - `sse`: one subscriber's stream of frames
//! - `html`: a snapshot as HTML
//! - `action`: the one thing that can be asked for, from this machine alone
//! - `page`: from a request to a response

mod action;
mod client;
mod flags;
mod html;
mod hub;
mod info;
mod kubelet;
mod local;
mod log_files;
mod page;
mod peer;
mod poller;
mod response;
mod snapshot;
mod sse;
mod status;

pub use flags::{Flags, RunsOn};
pub use local::{Counters, Listing, LocalServer, Served};
pub use page::{Format, PodPage, Target};
pub use response::{Body, Stream};
