//! A container's line of diagnostics, as a person needs it.

use crate::terminal::Detail;

/// Which module of a container says what every container says: that it listens, and that it drains. The kubelet's own events
/// tell the same.
const LIFECYCLE: &str = "lifecycle";
/// The level that needs no word.
const USUAL: &str = "INFO";

/// What to show of `line`, without the time that the container wrote: the terminal has its own. Nothing for a line that only `--verbose` shows.
pub(crate) fn shown(line: &str, detail: Detail) -> Option<String> {
    let Some((level, target, message)) = parts(line) else { return Some(line.to_owned()) };
    match detail {
        Detail::Verbose => Some(format!("{level} {target}: {message}")),
        Detail::Short if level == USUAL && target.starts_with(LIFECYCLE) => None,
        Detail::Short if level == USUAL => Some(message.to_owned()),
        Detail::Short => Some(format!("{level} {message}")),
    }
}

/// Level, target and message of `2026-11-26T01:22:50.329429Z  INFO lifecycle::listen: listening addr=127.0.0.1:9876`.
fn parts(line: &str) -> Option<(&str, &str, &str)> {
    let (time, rest) = line.split_once(' ')?;
    if !(time.ends_with('Z') && time.contains('T')) {
        return None;
    }
    let (level, rest) = rest.trim_start().split_once(' ')?;
    let (target, message) = rest.split_once(": ")?;
    Some((level, target, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_sees_what_a_container_does() {
        let published =
            "2026-11-26T01:22:50.608075Z  INFO file_puller::puller: published release=a4dc files=13";
        let failed = "2026-11-26T01:22:50.608075Z  WARN file_puller::puller: sync failed: refused: no";
        let listening = "2026-11-26T01:22:50.329429Z  INFO lifecycle::listen: listening addr=127.0.0.1:9876";
        let short = |line| shown(line, Detail::Short);
        assert_eq!(short(published).unwrap(), "published release=a4dc files=13");
        assert_eq!(short(failed).unwrap(), "WARN sync failed: refused: no");
        assert_eq!(short(listening), None);
        assert_eq!(short("web-server: a defect at x").unwrap(), "web-server: a defect at x");
        let all = shown(listening, Detail::Verbose).unwrap();
        assert_eq!(all, "INFO lifecycle::listen: listening addr=127.0.0.1:9876");
    }
}
