//! What the names that rotators give say: which log a file belonged to, and how old it is among its like.
//!
//! A name alone proves nothing: `worker-1` and `worker-2` are two logs. So what is here are possibilities; the catalog takes one
//! where a log of the name that it leads to is, or was, followed itself.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What logs are called that rotators put a number or a date behind.
const LOG_EXTENSIONS: [&str; 5] = ["log", "txt", "out", "err", "json"];

/// The files that rotation makes of one log: `access.log`, `access.log.1`, `access-20261123.log`, …
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct LogFamily(Arc<Path>);

impl LogFamily {
    /// That of the log with this name.
    pub(super) fn of(log: &Path) -> Self {
        Self(log.into())
    }

    /// The family of a name, and its age there: a rotated name belongs to a log that is known, else it is a log of its own.
    pub(super) fn among(logs: &HashSet<PathBuf>, path: &Path) -> (Self, RotationAge) {
        // Between a rotation and the next line, a log has no file of its own name; one with an extension is known all the same.
        let is_log = |log: &Path| {
            let extension = log.extension().and_then(|extension| extension.to_str());
            extension.is_some_and(|extension| LOG_EXTENSIONS.contains(&extension))
        };
        let mut rotations = rotations_of(path);
        let known = rotations.iter().position(|(log, _)| logs.contains(log));
        let known =
            known.or_else(|| rotations.iter().position(|(log, _)| is_log(log) && is_behind(path, log)));
        let known = known.map(|at| rotations.swap_remove(at));
        known.map_or_else(|| (Self::of(path), RotationAge::Current), |(log, age)| (Self::of(&log), age))
    }

    pub(super) fn log(&self) -> &Path {
        &self.0
    }
}

/// How old a member of a family is by its name; less is older.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum RotationAge {
    /// `access.log-20261123`: a date, or a time stamp, perhaps with a number behind it (`access.log.2026-11-23.2`). Its numbers.
    Dated(Vec<u128>),
    /// `access.log.2` is older than `access.log.1`.
    Numbered(Reverse<u64>),
    /// `access.log`: the one that is written to.
    Current,
}

/// Digits from this many on are a date or a time stamp, fewer are a count of rotations.
const DATE_DIGITS: usize = 6;

/// Fractions of a second are compared to this many digits, which are nanoseconds.
const FRACTION_DIGITS: usize = 9;

/// The logs that a name may be a rotation of, with its age there.
///
/// A rotation is what is behind the name (`app.log.1`, `app.log-20261123`, `app.log.2026-11-23T18`), or what is before the last
/// extension (`app.1.log`, `app-20261123.log`): digits and what separates them, behind a separator.
pub(super) fn rotations_of(path: &Path) -> Vec<(PathBuf, RotationAge)> {
    let name = path.file_name().map_or(&b""[..], |name| name.as_bytes());
    let mut found = Vec::new();
    let suffix = rotation_start(name);
    if let Some(age) = age(&name[suffix..])
        && suffix > 0
    {
        found.push((path.with_file_name(OsStr::from_bytes(&name[..suffix])), age));
    }
    if let Some(dot) = name.iter().rposition(|byte| *byte == b'.')
        && !name[dot + 1..].iter().any(u8::is_ascii_digit)
    {
        let (stem, extension) = name.split_at(dot);
        let infix = rotation_start(stem);
        if let Some(age) = age(&stem[infix..])
            && infix > 0
        {
            let log = [&stem[..infix], extension].concat();
            found.push((path.with_file_name(OsStr::from_bytes(&log)), age));
        }
    }
    found
}

/// How old a file of this family is by its name.
pub(super) fn age_in(path: &Path, family: &LogFamily) -> RotationAge {
    let rotation = rotations_of(path).into_iter().find(|(log, _)| log == family.log());
    rotation.map_or(RotationAge::Current, |(_, age)| age)
}

/// Whether a name is another one with something behind it.
fn is_behind(path: &Path, log: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().starts_with(log.as_os_str().as_encoded_bytes())
}

/// Where the rotation begins that a name ends with: at a separator, behind which there is nothing but digits, separators, and the
/// letters of a time stamp.
fn rotation_start(name: &[u8]) -> usize {
    let is_separator = |byte: u8| matches!(byte, b'.' | b'-' | b'_');
    let mut start = name.len();
    while start > 0 {
        let byte = name[start - 1];
        let digit = |at: usize| name.get(at).is_some_and(u8::is_ascii_digit);
        // As in 2026-11-23T18:02:03Z.
        let of_time = match byte {
            b'T' | b':' => start >= 2 && digit(start - 2) && digit(start),
            b'Z' => start == name.len() && start >= 2 && digit(start - 2),
            _ => false,
        };
        if !(byte.is_ascii_digit() || is_separator(byte) || of_time) {
            break;
        }
        start -= 1;
    }
    // `2026-11-23`: a name of nothing else is a name.
    if start == 0 {
        return name.len();
    }
    // `app2.log`: digits that no separator sets off belong to the name.
    start + name[start..].iter().position(|byte| is_separator(*byte)).unwrap_or(name.len() - start)
}

fn age(rotation: &[u8]) -> Option<RotationAge> {
    let rotation = rotation.trim_ascii();
    let from = rotation.iter().position(u8::is_ascii_digit)?;
    let rotation = &rotation[from..];
    let number = std::str::from_utf8(rotation).ok().and_then(|digits| digits.parse().ok());
    Some(match number {
        Some(number) if rotation.len() < DATE_DIGITS => RotationAge::Numbered(Reverse(number)),
        _ => RotationAge::Dated(numbers(rotation)),
    })
}

/// The numbers of a name, with whatever separates them. What is between a dot and the last `Z` is a fraction of a second: `03.5Z` is
/// younger than `03.25Z`.
fn numbers(name: &[u8]) -> Vec<u128> {
    let is_no_digit = |byte: &u8| !byte.is_ascii_digit();
    let digit = |number: u128, digit: &u8| number.saturating_mul(10).saturating_add(u128::from(digit - b'0'));
    let (name, fraction) =
        match name.strip_suffix(b"Z").map(|time| (time, time.iter().rposition(is_no_digit))) {
            Some((time, Some(dot))) if time[dot] == b'.' => (&time[..dot], Some(&time[dot + 1..])),
            _ => (name, None),
        };
    let runs = name.split(is_no_digit).filter(|run| !run.is_empty());
    let fraction = fraction
        .map(|digits| digits.iter().chain(std::iter::repeat(&b'0')).take(FRACTION_DIGITS).fold(0, digit));
    runs.map(|run| run.iter().fold(0, digit)).chain(fraction).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logs(name: &str) -> Vec<String> {
        let logs = rotations_of(&Path::new("/l").join(name)).into_iter();
        logs.map(|(log, _)| log.file_name().unwrap().to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn rotators_put_it_behind_the_name_or_before_the_extension() {
        for name in [
            "app.log.1",
            "app.log.10",
            "app.log-20261123",
            "app.log.2026-11-23_18-02-03",
            "app.log.2026-11-23T18:02:03Z",
            "app.1.log",
            "app-20261123.log",
            "app-2026-11-23T18-02-03.000.log",
            "app_2.log",
        ] {
            assert_eq!(logs(name), ["app.log"], "{name}");
        }
        assert_eq!(logs("worker-1"), ["worker"], "where there is no log called worker, it is one of its own");
        for name in ["app.log", "app2.log", "2026-11-23", "app.log.gz", "", "app.log."] {
            assert_eq!(logs(name), [""; 0], "{name}");
        }
    }

    #[test]
    fn the_oldest_first() {
        let mut names = ["a.log", "a.log.1", "a.log.10", "a.log-20261123", "a-20261122.log"];
        let age =
            |name: &str| rotations_of(Path::new(name)).pop().map_or(RotationAge::Current, |(_, age)| age);
        names.sort_by_key(|name| age(name));
        assert_eq!(names, ["a-20261122.log", "a.log-20261123", "a.log.10", "a.log.1", "a.log"]);
        let mut of_days = [
            "a.log.2026-11-23.10",
            "a.log.2026-11-23.2",
            "a.log.2026-11-23",
            "a.log.2026-11-22.11",
            "a.log.2026-11-22T18:02:03Z",
        ];
        of_days.sort_by_key(|name| age(name));
        let expected = [
            "a.log.2026-11-22.11",
            "a.log.2026-11-22T18:02:03Z",
            "a.log.2026-11-23",
            "a.log.2026-11-23.2",
            "a.log.2026-11-23.10",
        ];
        assert_eq!(of_days, expected);
        let mut of_seconds = ["03.5Z", "03.25Z", "03Z", "03.250000001Z", "02.9Z"]
            .map(|end| format!("a.log.2026-11-23T18:02:{end}"));
        of_seconds.sort_by_key(|name| age(name));
        let ends = of_seconds.each_ref().map(|name| name.rsplit(':').next().unwrap());
        assert_eq!(ends, ["02.9Z", "03Z", "03.25Z", "03.250000001Z", "03.5Z"]);
    }
}
