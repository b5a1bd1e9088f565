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
    // Go's slog has levels between its words: `INFO+2`, `DEBUG-4`.
    if let Some(at) = level.iter().rposition(|byte| matches!(byte, b'+' | b'-'))
        && let Some(between) = std::str::from_utf8(&level[at..]).ok().and_then(|text| text.parse::<i8>().ok())
    {
        let number = i16::from(of_word(&level[..at])?.0) + i16::from(between);
        return u8::try_from(number.clamp(1, 24)).ok().map(Number);
    }
    of_word(level)
}

fn of_word(word: &[u8]) -> Option<Number> {
    let is = |words: &[&str]| words.iter().any(|known| word.eq_ignore_ascii_case(known.as_bytes()));
    if is(&["info", "information", "notice", "http"]) {
        Some(INFO)
    } else if is(&["warn", "warning"]) {
        Some(WARN)
    } else if is(&["error", "err"]) {
        Some(ERROR)
    } else if is(&["debug", "verbose"]) {
        Some(DEBUG)
    } else if is(&["trace", "silly"]) {
        Some(TRACE)
    } else if is(&["fatal", "critical", "crit", "alert", "emerg", "emergency", "panic", "dpanic"]) {
        Some(FATAL)
    } else {
        None
    }
}

/// By the numbers that loggers use, which do not overlap: syslog's 0 to 7 (GELF), 10 to 60 of pino and bunyan, 100 to 600 of Monolog.
pub(super) fn of_number(level: i64) -> Option<Number> {
    Some(match level {
        10..=19 => TRACE,
        7 | 20..=29 | 100..=199 => DEBUG,
        5 | 6 | 30..=39 | 200..=299 => INFO,
        4 | 40..=49 | 300..=399 => WARN,
        3 | 50..=59 | 400..=499 => ERROR,
        0..=2 | 60..=69 | 500..=600 => FATAL,
        _ => return None,
    })
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
        assert_eq!(
            [&b"INFO+2"[..], b"DEBUG-4", b"ERROR+90"].map(of_level),
            [11, 1, 24].map(|number| Some(Number(number)))
        );
        assert_eq!([b"loud+1".as_slice(), b"log-4me", b"-"].map(of_level), [None; 3]);
        assert_eq!([30, 3, 250, 70].map(of_number), [Some(INFO), Some(ERROR), Some(INFO), None]);
        assert_eq!([200, 304, 404, 503].map(of_status), [INFO, INFO, WARN, ERROR]);
    }
}
