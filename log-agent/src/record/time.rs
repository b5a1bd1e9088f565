//! Times as nanoseconds since 1970: what the binary encodings carry in the place of a text, and what loggers write as a number.

const SECOND: i64 = 1_000_000_000;

/// The first second of 1973: a number that is less is a duration or a count, not a time.
const EARLIEST: u64 = 94_694_400;

/// A number of seconds, milliseconds, microseconds or nanoseconds since 1970: which, its size tells, as no log is from before 1973.
pub(super) fn unix_nanos_of(value: i64) -> Option<u64> {
    let value = u64::try_from(value).ok()?;
    let unit = [1_000_000_000, 1_000_000, 1_000, 1]
        .into_iter()
        .find(|unit| value < (EARLIEST * 1_000).saturating_mul(1_000_000_000 / unit))?;
    let seconds = value / (1_000_000_000 / unit);
    (seconds >= EARLIEST).then(|| value.checked_mul(unit))?
}

/// The same of a number with a fraction, to the microsecond: an `f64` of seconds holds no more.
pub(super) fn unix_nanos_of_fraction(value: f64) -> Option<u64> {
    if !(0.0..9e18).contains(&value) {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, reason = "it is less than 2^63")]
    let whole = value as i64;
    let nanos = unix_nanos_of(whole)?;
    let unit = u32::try_from(nanos / u64::try_from(whole).ok()?).ok()?;
    let fraction = (value.fract() * f64::from(unit) / 1000.0).round();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to a million")]
    Some(nanos + fraction as u64 * 1000)
}

/// Reads a time stamp, RFC 3339 or with a space before the time or no colon in the zone; nothing where it is none, or one outside
/// 1970 to 2262.
pub(crate) fn unix_nanos(text: &[u8]) -> Option<u64> {
    let two = |at: usize| number(text.get(at..at + 2)?);
    let (year, month, day) = (number(text.get(..4)?)?, two(5)?, two(8)?);
    let (hour, minute, second) = (two(11)?, two(14)?, two(17)?);
    let separated =
        [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')].iter().all(|(at, mark)| text.get(*at) == Some(mark))
            && matches!(text.get(10), Some(b'T' | b't' | b' '));
    // A leap second is the last one that fits.
    let in_range = is_date(year, month, day) && hour < 24 && minute < 60 && second <= 60;
    if !(in_range && separated) {
        return None;
    }
    let mut rest = text.get(19..)?;
    let mut nanos = 0;
    if let Some(fraction) = rest.strip_prefix(b".") {
        let end = fraction.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(fraction.len());
        let mut unit = SECOND;
        for digit in fraction.get(..end)?.iter().take(9) {
            unit /= 10;
            nanos += unit * i64::from(digit - b'0');
        }
        rest = fraction.get(end..)?;
    }
    let offset = match rest {
        b"Z" | b"z" => 0,
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] | [sign @ (b'+' | b'-'), h1, h2, m1, m2] => {
            let minutes = zone_minutes([*h1, *h2], [*m1, *m2])?;
            if *sign == b'-' { -minutes } else { minutes }
        }
        _ => return None,
    };
    let seconds = days(year, month, day) * 86_400 + hour * 3600 + (minute - offset) * 60 + second;
    u64::try_from(seconds.checked_mul(SECOND)?.checked_add(nanos)?).ok()
}

/// Whether the Gregorian calendar has this day.
pub(super) fn is_date(year: i64, month: i64, day: i64) -> bool {
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 => 28 + i64::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return false,
    };
    (1..=days).contains(&day)
}

/// How far from UTC a zone is that is written in hours and minutes.
pub(super) fn zone_minutes(hours: [u8; 2], minutes: [u8; 2]) -> Option<i64> {
    let (hours, minutes) = (number(&hours)?, number(&minutes)?);
    (hours < 24 && minutes < 60).then_some(hours * 60 + minutes)
}

pub(super) fn number(digits: &[u8]) -> Option<i64> {
    let mut sum = 0;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        sum = sum * 10 + i64::from(digit - b'0');
    }
    Some(sum)
}

/// Days since 1970, in the Gregorian calendar. A year is counted from March, so that the leap day is its last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let from_march = (month + 9) % 12;
    365 * year + year / 4 - year / 100 + year / 400 + (153 * from_march + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_humantime_reads_it() {
        for text in [
            "1970-01-01T00:00:00Z",
            "2000-02-29T23:59:59.999999999Z",
            "2026-11-23T18:02:03.123456Z",
            "2100-03-01T00:00:00.5Z",
            "2026-12-31T00:00:00Z",
        ] {
            let expected = humantime::parse_rfc3339(text).unwrap();
            let expected = expected.duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
            assert_eq!(u128::from(unix_nanos(text.as_bytes()).unwrap()), expected, "{text}");
        }
    }

    #[test]
    fn zones_and_nonsense() {
        let at = |text: &str| unix_nanos(text.as_bytes());
        assert_eq!(at("2026-11-23T19:02:03+01:00"), at("2026-11-23T18:02:03Z"));
        assert_eq!(at("2026-11-23T12:32:03.25-05:30"), at("2026-11-23T18:02:03.250Z"));
        for text in [
            "",
            "2026-11-23T18:02:03",
            "2026-13-23T18:02:03Z",
            "2026-02-29T18:02:03Z",
            "2100-02-29T18:02:03Z",
            "2026-11-31T18:02:03Z",
            "2026-11-23T18:02:03+24:00",
            "2026-11-23T18:02:03+0060",
            "1969-12-31T23:59:59Z",
            "2026-11-23T18:02:03.Zx",
            "9999-01-01T00:00:00Z",
        ] {
            assert_eq!(at(text), None, "{text}");
        }
    }
}
