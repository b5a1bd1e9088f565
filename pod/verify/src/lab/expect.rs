//! Whether what came is what the page shows.
//!
//! `…` stands for whatever is there: within a line for any characters, alone on a line for any number of lines. Spaces at the end of a
//! line do not count.

/// What stands for anything.
pub(crate) const ANYTHING: &str = "…";

/// Whether these lines, and no others, are what the page shows.
pub(crate) fn shows(shown: &[String], came: &[String]) -> bool {
    match shown.split_first() {
        None => came.is_empty(),
        Some((line, rest)) if line == ANYTHING => {
            (0..=came.len()).any(|skipped| shows(rest, &came[skipped..]))
        }
        Some((line, rest)) => {
            came.split_first().is_some_and(|(first, others)| matches(line, first) && shows(rest, others))
        }
    }
}

/// Whether the lines that are shown are among those that came, in their order: the position after the last of them.
pub(crate) fn among<'a>(shown: &'a [String], came: &[String]) -> Result<usize, &'a str> {
    let mut position = 0;
    for line in shown.iter().filter(|line| *line != ANYTHING) {
        match came[position..].iter().position(|given| matches(line, given)) {
            Some(found) => position += found + 1,
            None => return Err(line),
        }
    }
    Ok(position)
}

/// Whether one line is as it is shown.
fn matches(shown: &str, came: &str) -> bool {
    let came = came.trim_end();
    let Some((start, rest)) = shown.split_once(ANYTHING) else { return shown == came };
    let Some(mut left) = came.strip_prefix(start) else { return false };
    let mut parts = rest.split(ANYTHING).peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return left.ends_with(part);
        }
        match left.split_once(part) {
            Some((_, after)) => left = after,
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn anything_is_anything_and_the_rest_is_to_the_letter() {
        for (shown, came, alike) in [
            ("a\nb", "a\nb", true),
            ("a\nb", "a", false),
            ("a", "a\nb", false),
            ("", "", true),
            ("", "a", false),
            ("pid …", "pid 12  ", true),
            ("pid …, …ms", "pid 12, 3 ms", true),
            ("pid …, …ms", "pid 12, 3 s", false),
            ("…b…", "abc", true),
            ("a…a", "a", false),
            ("a\n…\nz", "a\nz", true),
            ("a\n…\nz", "a\nb\nc\nz", true),
            ("a\n…", "a", true),
            ("a\n…\nz", "a\nb", false),
        ] {
            assert_eq!(shows(&lines(shown), &lines(came)), alike, "{shown:?} and {came:?}");
        }
    }

    #[test]
    fn lines_among_others_come_in_their_order() {
        let came = lines("one\ntwo\nthree\ntwo");
        assert_eq!(among(&lines("one\n…\nthree"), &came), Ok(3));
        assert_eq!(among(&lines("three\ntwo"), &came), Ok(4));
        assert_eq!(among(&lines("three\none"), &came), Err("one"));
    }
}
