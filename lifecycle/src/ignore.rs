//! One way to ignore a result on purpose.

/// Discards a result whose failure changes nothing for the caller. A comment beside the call says why.
pub trait Ignore {
    /// Discards the value.
    fn ignore(self);
}

impl<T, E> Ignore for Result<T, E> {
    fn ignore(self) {
        drop(self);
    }
}
