//! What content is received with: [`Intake`].

use std::sync::Arc;

use crate::content::{Limits, Selection};
use crate::fetch::Unpacking;
use crate::metrics::Metrics;
use crate::source::Source;
use crate::store::Volume;

/// Where content comes from and goes to, and what it is held to on the way.
#[derive(Debug, Clone)]
pub(super) struct Intake {
    pub(super) source: Arc<Source>,
    pub(super) volume: Arc<Volume>,
    pub(super) selection: Selection,
    pub(super) limits: Limits,
    pub(super) unpacking: Unpacking,
    pub(super) metrics: Metrics,
}
