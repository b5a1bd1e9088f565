//! Lines that a container runtime wrote: when, on which stream, and what the container wrote, which may come in parts.
//!
//! A runtime splits what is longer than its buffer (16 KiB) and marks all parts but the last. The parts of one stream follow one
//! another, but lines of the other stream may lie between them. So a range of the file can be confirmed only where no line is open.

use std::borrow::Cow;
use std::ops::Range;

use memchr::{memchr, memchr_iter};

use super::{BadLine, DataEnd, Format, leading_nuls};
use crate::record::json::{self, Text};
use crate::record::time;

/// Where a container wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    /// As OpenTelemetry's `log.iostream` has it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }

    /// By its name.
    pub(crate) fn of(name: &[u8]) -> Option<Self> {
        match name {
            b"stdout" => Some(Self::Stdout),
            b"stderr" => Some(Self::Stderr),
            _ => None,
        }
    }
}

/// What a runtime says of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Envelope {
    /// In nanoseconds since 1970.
    pub(crate) time: u64,
    pub(crate) stream: Stream,
}

/// What a container wrote until its line break, or whatever is between the lines.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Joined<'a> {
    /// From the beginning of its first part to the end of its last one, without that one's line break.
    pub(crate) place: Range<usize>,
    pub(crate) text: Cow<'a, [u8]>,
    /// How many NULs were before its parts.
    pub(crate) nuls: usize,
    /// That of its first part.
    pub(crate) envelope: Result<Envelope, BadLine>,
}

/// One line of the file.
struct Part<'a> {
    envelope: Envelope,
    /// Whether its line goes on in the stream's next part.
    partial: bool,
    text: Cow<'a, [u8]>,
}

/// The lines at the beginning of `data`, which begins with a whole one, and how much of `data` they and all between them are. A line
/// whose last part has not come waits for it, unless the file has ended, or the parts fill all of `data`.
pub(crate) fn lines<'a>(format: Format, data: &'a [u8], end: DataEnd) -> (Vec<Joined<'a>>, usize) {
    let mut open: [Option<Joined<'a>>; 2] = [None, None];
    let (mut found, mut safe) = (Vec::new(), (0, 0));
    let mut start = 0;
    let ends = memchr_iter(b'\n', data).map(|at| (at, at + 1));
    let unterminated = (end == DataEnd::Final && !data.ends_with(b"\n") && !data.is_empty())
        .then_some((data.len(), data.len()));
    for (line_end, next) in ends.chain(unterminated) {
        let nuls = leading_nuls(&data[start..line_end]);
        let place = start + nuls..line_end;
        let line = &data[place.clone()];
        start = next;
        match part(format, line) {
            Err(bad) => found.push(Joined { place, text: Cow::Borrowed(line), nuls, envelope: Err(bad) }),
            Ok(part) => {
                let slot = &mut open[part.envelope.stream as usize];
                let joined = match slot.take() {
                    Some(mut joined) => {
                        joined.place.end = place.end;
                        joined.text.to_mut().extend_from_slice(&part.text);
                        joined.nuls += nuls;
                        joined
                    }
                    None => Joined { place, text: part.text, nuls, envelope: Ok(part.envelope) },
                };
                if part.partial {
                    *slot = Some(joined);
                } else {
                    found.push(joined);
                }
            }
        }
        if open.iter().all(Option::is_none) {
            safe = (found.len(), next);
        }
    }
    if end == DataEnd::Final || (end == DataEnd::More && safe.1 == 0) {
        found.extend(open.into_iter().flatten());
        safe = (found.len(), start);
    }
    found.truncate(safe.0);
    // In the order in which they began, as their ids are.
    found.sort_by_key(|joined| joined.place.start);
    (found, safe.1)
}

fn part(format: Format, line: &[u8]) -> Result<Part<'_>, BadLine> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match format {
        Format::Docker => docker(line).ok_or(BadLine::NotDocker),
        _ => cri(line).ok_or(BadLine::NotCri),
    }
}

/// `2016-10-06T00:17:09.669794202Z stdout P log content`: the tags are separated by colons, and the first is P or F.
fn cri(line: &[u8]) -> Option<Part<'_>> {
    let word = |line| {
        let end = memchr(b' ', line)?;
        Some((&line[..end], &line[end + 1..]))
    };
    let (time, rest) = word(line)?;
    let (stream, rest) = word(rest)?;
    // An empty line may have lost the blank behind its tags.
    let (tags, text) = word(rest).unwrap_or((rest, &[]));
    let partial = match tags.split(|byte| *byte == b':').next()? {
        b"P" => true,
        b"F" => false,
        _ => return None,
    };
    let envelope = Envelope { time: time::unix_nanos(time)?, stream: Stream::of(stream)? };
    Some(Part { envelope, partial, text: Cow::Borrowed(text) })
}

/// `{"log":"content\n","stream":"stdout","time":"2014-09-11T00:51:46.000000000Z"}`: a part has no line break at its end.
fn docker(line: &[u8]) -> Option<Part<'_>> {
    std::str::from_utf8(line).ok()?;
    json::object(line, &mut json::Ignore)?;
    let (mut log, mut stream, mut time) = (None, None, None);
    let mut names = Vec::new();
    for pair in json::pairs(line) {
        let value = pair.text();
        let plain = || value.as_ref().and_then(Text::plain).map(|(text, _)| text);
        match pair.name.bytes(&mut names) {
            b"log" => log = value,
            b"stream" => stream = plain().and_then(Stream::of),
            b"time" => time = plain().and_then(time::unix_nanos),
            _ => {}
        }
    }
    let log = log?;
    let (text, whole) = if let Some((text, _)) = log.plain() {
        // A line break is an escape.
        (Cow::Borrowed(text), false)
    } else {
        let mut text = log.bytes(&mut Vec::new()).to_vec();
        let whole = text.pop_if(|last| *last == b'\n').is_some();
        (Cow::Owned(text), whole)
    };
    Some(Part { envelope: Envelope { time: time?, stream: stream? }, partial: !whole, text })
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: &str = "2016-10-06T00:17:09.669794202Z";

    fn cri_lines(data: &str, end: DataEnd) -> (Vec<(Range<usize>, String)>, usize) {
        let (lines, taken) = lines(Format::Cri, data.as_bytes(), end);
        (
            lines
                .into_iter()
                .map(|line| (line.place, String::from_utf8(line.text.into_owned()).unwrap()))
                .collect(),
            taken,
        )
    }

    #[test]
    fn parts_are_joined_by_stream_and_confirmed_where_no_line_is_open() {
        let data = format!(
            "{T} stdout P one \n{T} stderr F other\n{T} stdout F line\n{T} stdout F next\n{T} stdout P op"
        );
        let starts: Vec<_> = data.match_indices(T).map(|(at, _)| at).collect();
        let (lines, taken) = cri_lines(&data, DataEnd::Eof);
        let texts: Vec<_> = lines.iter().map(|(place, text)| (place.start, text.as_str())).collect();
        assert_eq!(texts, [(starts[0], "one line"), (starts[1], "other"), (starts[3], "next")]);
        assert_eq!(taken, starts[4]);
        // The last part never comes.
        let (lines, taken) = cri_lines(&data, DataEnd::Final);
        assert_eq!((lines.last().unwrap().1.as_str(), taken), ("op", data.len()));
    }

    #[test]
    fn what_is_open_holds_back_what_is_behind_it() {
        let data = format!("{T} stdout P one \n{T} stderr F other\n");
        assert_eq!(cri_lines(&data, DataEnd::Eof), (vec![], 0));
        // Unless there is no room for more.
        let (lines, taken) = cri_lines(&data, DataEnd::More);
        assert_eq!(lines.iter().map(|line| line.1.as_str()).collect::<Vec<_>>(), ["one ", "other"]);
        assert_eq!(taken, data.len());
    }

    #[test]
    fn a_runtimes_line_has_a_time_a_stream_and_a_tag() {
        let data = b"2016-10-06T02:17:09+02:00 stderr F:x \n2016-10-06T00:17:09Z stdout F\nno such line\n";
        let (lines, taken) = lines(Format::Cri, data, DataEnd::Eof);
        let envelope = Envelope { time: 1_475_713_029_000_000_000, stream: Stream::Stderr };
        assert_eq!((lines[0].envelope, lines[0].text.as_ref()), (Ok(envelope), &b""[..]));
        assert_eq!(lines[1].envelope, Ok(Envelope { stream: Stream::Stdout, ..envelope }));
        assert_eq!(
            (lines[2].envelope, lines[2].text.as_ref(), taken),
            (Err(BadLine::NotCri), &b"no such line"[..], data.len())
        );
    }

    #[test]
    fn dockers_lines_are_joined_too() {
        let data = concat!(
            r#"{"log":"a \"b","stream":"stdout","time":"2014-09-11T00:51:46.5Z"}"#,
            "\n",
            r#"{"log":"\"\n","stream":"stdout","time":"2014-09-11T00:51:46.6Z","attrs":{"x":"y"}}"#,
            "\n",
            r#"{"log":"c\r\n","stream":"stderr","time":"2014-09-11T00:51:47Z"}"#,
            "\n",
            r#"{"log":"d"}"#,
            "\n",
        );
        let (lines, taken) = lines(Format::Docker, data.as_bytes(), DataEnd::Eof);
        assert_eq!(
            (lines[0].text.as_ref(), lines[1].text.as_ref(), taken),
            (&b"a \"b\""[..], &b"c\r"[..], data.len())
        );
        assert_eq!(
            lines[0].envelope,
            Ok(Envelope { time: 1_410_396_706_500_000_000, stream: Stream::Stdout })
        );
        assert_eq!(lines[2].envelope, Err(BadLine::NotDocker));
    }
}
