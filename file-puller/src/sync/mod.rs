//! One sync from beginning to end: ask, plan, fetch, assemble, publish. And what is done between two syncs: verify, retain.

mod assemble;
mod engine;
mod error;
mod followed;
mod gate;
mod git;
mod handle;
mod http_gate;
mod image;
mod intake;
mod options;
mod outcome;
mod plan;
mod publisher;
mod remembered;
mod seed_state;
mod trust;

pub(crate) use self::engine::Engine;
pub(crate) use self::error::SyncError;
pub(crate) use self::handle::EngineHandle;
pub(crate) use self::http_gate::HttpGate;
pub(crate) use self::options::EngineOptions;
pub(crate) use self::outcome::{Awaited, Interrupt, Outcome, Publication, Revision, Verdict};
pub(crate) use self::trust::Authenticity;
