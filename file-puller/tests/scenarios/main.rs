//! file-puller as a process, against content managers over real sockets: healthy ones and others.
//!
//! The names of the tests are the rows of the project's scorecard.

// A panic is how a test fails, also in the functions that tests share.
#![allow(clippy::panic)]

mod content;
mod puller;
mod tarball;

mod announcements;
mod archives;
mod crashes;
mod engine;
mod gates;
mod hooks;
mod images;
mod kinds;
mod lifecycle;
mod manifests;
mod messages;
mod nginx;
mod proxies;
mod recipes;
mod redirects;
mod refusals;
mod releases;
mod repairs;
mod repositories;
mod requests;
mod retention;
mod secrets;
mod signatures;
mod spares;
mod terminal;
mod tls;
mod transfers;
mod trust;
mod unavailable;
mod users;
mod validators;
mod volume;
mod waiting;
