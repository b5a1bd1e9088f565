//! Points in time as a manifest and a flag write them: RFC 3339, with any offset.

use std::time::SystemTime;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// 9999-12-31T23:59:59Z.
const LAST_SECOND: i64 = 253_402_300_799;

/// Reads a time such as `2026-11-23T19:00:00+01:00`; for clap's `value_parser`, too.
///
/// A leap second is read as the last moment of its minute, as `time` does: the clock of this machine has none either.
pub(crate) fn parse(text: &str) -> Result<SystemTime, String> {
    let time = OffsetDateTime::parse(text, &Rfc3339).map_err(
        |_| "it is not an RFC 3339 time, such as 2026-11-23T18:00:00Z or 2026-11-23T19:00:00+01:00",
    )?;
    // Outside of these years it could not be written again in UTC, and no content is that old or that new.
    if !(0..=LAST_SECOND).contains(&time.unix_timestamp()) {
        return Err("it is not between the years 1970 and 9999".to_owned());
    }
    Ok(time.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_offset_and_any_precision_is_the_same_moment() {
        let expected = humantime::parse_rfc3339("2026-11-23T18:00:00Z").unwrap();
        for text in [
            "2026-11-23T18:00:00Z",
            "2026-11-23t18:00:00z",
            "2026-11-23T19:00:00+01:00",
            "2026-11-23T12:30:00.000000000-05:30",
            "2026-11-24T17:59:00+23:59",
            "2026-11-23T18:00:00-00:00",
        ] {
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
        let exact = parse("2026-11-23T19:00:00.123456+01:00").unwrap();
        assert_eq!(humantime::format_rfc3339_micros(exact).to_string(), "2026-11-23T18:00:00.123456Z");
        assert!(parse("2016-12-31T23:59:60Z").is_ok(), "a leap second");
        assert!(parse("9999-12-31T23:59:59Z").is_ok());
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "2026-11-23",
            "2026-11-23T18:00:00",
            "2026-11-23 18:00:00",
            "2026-11-23T25:00:00Z",
            "2026-02-29T18:00:00Z",
            "2026-11-23T18:00:00+0100",
            "2026-11-23T18:00:00Z ",
            "1969-12-31T23:59:59Z",
            "1970-01-01T00:00:00+01:00",
            "9999-12-31T23:59:59-23:59",
        ] {
            // The last one is a moment of the year 10000, which no RFC 3339 time can say in UTC.
            let refused = parse(text).map(|time| humantime::format_rfc3339(time).to_string());
            assert!(refused.is_err(), "{text}: {refused:?}");
        }
    }
}
