//! The files that are followed: which they are, in which order they are read, and what is read of each.

mod catalog;
mod file;
mod lag;
#[cfg(test)]
mod model_tests;
mod queue;

pub(crate) use catalog::Catalog;
pub(crate) use file::{
    Multiline, Naming, Progress, ReadOptions, ReadState, TailedFile, UnterminatedLine, Until,
};
pub(crate) use queue::ReadQueue;
