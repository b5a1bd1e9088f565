//! Severity as a number, so that a receiver can ask for "warnings and worse" of lines whose writers have other words for it.

/// OpenTelemetry's `SeverityNumber`, the first of its range of four.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Number(pub(super) u8);

const TRACE: Number = Number(1);
const DEBUG: Number = Number(5);
const INFO: Number = Number(9);
const WARN: Number = Number(13);
const ERROR: Number = Number(17);
const FATAL: Number = Number(21);

/// By the words that loggers use; none where the word is not known.
pub(super) fn of_level(level: &[u8]) -> Option<Number> {
    let is = |words: &[&str]| words.iter().any(|word| level.eq_ignore_ascii_case(word.as_bytes()));
    if is(&["info", "information", "notice"]) {
        Some(INFO)
    } else if is(&["warn", "warning"]) {
        Some(WARN)
    } else if is(&["error", "err"]) {
        Some(ERROR)
    } else if is(&["debug"]) {
        Some(DEBUG)
    } else if is(&["trace"]) {
        Some(TRACE)
    } else if is(&["fatal", "critical", "crit", "alert", "emerg", "emergency", "panic"]) {
        Some(FATAL)
    } else {
        None
    }
}

/// By an HTTP status: the server's failure is an error, a request that was refused a warning.
pub(super) fn of_status(status: u16) -> Number {
    match status {
        500.. => ERROR,
        400..=499 => WARN,
        _ => INFO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_statuses() {
        assert_eq!(of_level(b"WARNING"), Some(WARN));
        assert_eq!(of_level(b"loud"), None);
        assert_eq!([200, 304, 404, 503].map(of_status), [INFO, INFO, WARN, ERROR]);
    }
}
