//! What a receiver gets: one record a line, after OpenTelemetry's log data model, in the encoding that its sink speaks.
//!
//! Every encoding carries the same: which record it is, when it happened and when it was read, its severity, what the
//! line says, where it comes from. In the order in which a line goes through: [`parse`] (what it says), [`filter`] (what
//! of it is left out), [`chunk`] (lines that are delivered and confirmed as one), [`resource`] (what is added),
//! [`encode`].

pub(crate) mod chunk;
pub(crate) mod encode;
pub(crate) mod filter;
pub(crate) mod json;
pub(crate) mod parse;
pub(crate) mod resource;
mod severity;
mod time;

pub(crate) use time::unix_nanos;
