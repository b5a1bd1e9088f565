//! Durations and sizes as people write them: `250ms`, `10s`, `5min`; `64KiB`, `1MiB`, `10MB`.

use std::time::Duration;

/// The longest duration, a hundred years: a point in time that lies so far ahead still is one, also where several are added.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// Parses a duration such as `10s` or `1h 30min`, of at most 100 years; for clap's `value_parser`.
///
/// # Errors
/// A sentence that shows what a duration looks like, or says that it is too long.
pub fn duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text)
        .map_err(|error| format!("{error}; write it like 250ms, 10s or 5min"))?;
    if duration > LONGEST {
        return Err("too long: at most 36500days".to_owned());
    }
    Ok(duration)
}

/// Parses a duration that is more than zero; for clap's `value_parser`.
///
/// # Errors
/// A sentence that shows what a duration looks like, or says that it must not be zero.
pub fn positive_duration(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("it must be more than zero".to_owned()),
        duration => Ok(duration),
    }
}

/// Parses a size in bytes such as `64KiB` (1,024 each) or `10MB` (1,000 each); for clap's `value_parser`.
///
/// # Errors
/// A sentence that shows what a size looks like.
pub fn size(text: &str) -> Result<u64, String> {
    text.parse::<bytesize::ByteSize>()
        .map(|size| size.as_u64())
        .map_err(|error| format!("{error}; write it like 512, 64KiB or 10MB"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_are_read_as_people_write_them() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("1h 30min"), Ok(Duration::from_secs(5400)));
        assert_eq!(positive_duration("1ns"), Ok(Duration::from_nanos(1)));
        assert!(positive_duration("0s").is_err());
        assert_eq!(size("64KiB"), Ok(65536));
        assert_eq!(size("10MB"), Ok(10_000_000));
        assert_eq!(size("512"), Ok(512));
    }

    #[test]
    fn a_wrong_one_is_told_what_a_right_one_looks_like() {
        assert!(duration("10").unwrap_err().contains("10s"));
        assert!(duration("soon").unwrap_err().contains("10s"));
        for endless in ["18446744073709551615s", "36501days", "18446744073709551616s"] {
            let error = positive_duration(endless).unwrap_err();
            assert!(error.contains("too long") || error.contains("too large"), "{error}");
        }
        assert!(duration("36500days").is_ok());
        assert!(size("many").unwrap_err().contains("64KiB"));
        assert!(size("-1").is_err());
    }
}
