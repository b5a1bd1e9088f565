//! Apache's and nginx's `common` and `combined` access logs, as the object that the web server's own JSON log would have
//! been: whatever the format, a receiver sees the same names and types.

use serde_json::{Map, Value};

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Reads `host ident user [time] "request" status size`, with `"referer" "user agent"` after it in the combined format.
pub(super) fn parse(line: &str) -> Option<Map<String, Value>> {
    let mut rest = line;
    let mut object = Map::new();
    let mut set = |name: &str, value: Value| drop(object.insert(name.to_owned(), value));

    let address = word(&mut rest)?;
    let _ident = word(&mut rest)?;
    let user = word(&mut rest)?;
    let (time, after) = rest.strip_prefix('[')?.split_once(']')?;
    rest = after.trim_start_matches(' ');
    set("timestamp", timestamp(time)?.into());
    set("client.address", address.into());
    if user != "-" {
        set("user.name", user.into());
    }

    let request = quoted(&mut rest)?;
    let mut parts = request.split(' ');
    match (parts.next(), parts.next(), parts.next().and_then(|last| last.strip_prefix("HTTP/")), parts.next())
    {
        (Some(method), Some(target), Some(version), None) => {
            let (path, query) = target.split_once('?').unwrap_or((target, ""));
            set("http.request.method", method.into());
            set("url.path", path.into());
            set("url.query", query.into());
            set("network.protocol.version", version.into());
        }
        // Not a request that the server understood either: kept as it came.
        _ => set("url.original", request.into()),
    }
    set("http.response.status_code", word(&mut rest)?.parse::<u16>().ok()?.into());
    let size = word(&mut rest)?;
    set("http.response.body.size", if size == "-" { 0 } else { size.parse::<u64>().ok()? }.into());
    if !rest.trim().is_empty() {
        let absent = |text: String| if text == "-" { String::new() } else { text };
        set("http.request.header.referer", absent(quoted(&mut rest)?).into());
        set("user_agent.original", absent(quoted(&mut rest)?).into());
    }
    rest.trim().is_empty().then_some(object)
}

fn word<'a>(rest: &mut &'a str) -> Option<&'a str> {
    let (word, after) = rest.split_once(' ').unwrap_or((rest, ""));
    *rest = after;
    (!word.is_empty()).then_some(word)
}

/// A quoted text, with the escapes that servers write in one: `\"`, `\\` and `\xHH`, and Apache's of C for control characters.
fn quoted(rest: &mut &str) -> Option<String> {
    let mut text = Vec::new();
    let mut bytes = rest.strip_prefix('"')?.bytes().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'"' => {
                *rest = rest.get(at + 2..)?.trim_start_matches(' ');
                return Some(String::from_utf8_lossy(&text).into_owned());
            }
            b'\\' => match bytes.next()?.1 {
                b'x' => {
                    let digits = [bytes.next()?.1, bytes.next()?.1];
                    text.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
                }
                b'b' => text.push(8),
                b't' => text.push(b'\t'),
                b'n' => text.push(b'\n'),
                b'v' => text.push(11),
                b'r' => text.push(b'\r'),
                escaped => text.push(escaped),
            },
            byte => text.push(byte),
        }
    }
    None
}

/// `10/Oct/2000:13:55:36 -0700` as RFC 3339.
fn timestamp(time: &str) -> Option<String> {
    let (date, zone) = time.split_once(' ')?;
    let (day, rest) = date.split_once('/')?;
    let (month, rest) = rest.split_once('/')?;
    let (year, clock) = rest.split_once(':')?;
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    let digits =
        |text: &str, count: usize| text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    let clock_is_whole = clock.len() == 8 && clock.split(':').all(|part| digits(part, 2));
    let (sign, offset) = zone.split_at_checked(1)?;
    if !(digits(day, 2)
        && digits(year, 4)
        && clock_is_whole
        && digits(offset, 4)
        && matches!(sign, "+" | "-"))
    {
        return None;
    }
    let zone =
        if offset == "0000" { "Z".to_owned() } else { format!("{sign}{}:{}", &offset[..2], &offset[2..]) };
    Some(format!("{year}-{month:02}-{day}T{clock}{zone}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn combined_and_common() {
        let line = r#"::1 - frank [10/Oct/2000:13:55:36 -0700] "GET /a.gif?b=c HTTP/1.0" 200 2326 "-" "Say \"hi\" \x41""#;
        let expected = json!({
            "timestamp": "2000-10-10T13:55:36-07:00", "client.address": "::1", "user.name": "frank",
            "http.request.method": "GET", "url.path": "/a.gif", "url.query": "b=c",
            "network.protocol.version": "1.0", "http.response.status_code": 200, "http.response.body.size": 2326,
            "http.request.header.referer": "", "user_agent.original": "Say \"hi\" A",
        });
        assert_eq!(Value::from(parse(line).unwrap()), expected);
        let common = parse(r#"10.0.0.1 - - [01/Jan/2026:00:00:00 +0000] "GET / HTTP/1.1" 304 -"#).unwrap();
        assert_eq!(common["timestamp"], "2026-01-01T00:00:00Z");
        assert_eq!(common["http.response.body.size"], 0);
        assert!(!common.contains_key("user_agent.original"));
    }

    #[test]
    fn a_request_that_is_none_is_kept_as_it_came() {
        let line = r#"10.0.0.1 - - [01/Jan/2026:00:00:00 +0000] "\x16\x03" 400 0"#;
        assert_eq!(parse(line).unwrap()["url.original"], "\u{16}\u{3}");
        let line = r#"10.0.0.1 - - [01/Jan/2026:00:00:00 +0000] "a\tb\nc\rd\be\vf\\n" 400 0"#;
        assert_eq!(parse(line).unwrap()["url.original"], "a\tb\nc\rd\u{8}e\u{b}f\\n");
    }

    #[test]
    fn anything_else_is_no_access_log() {
        for line in [
            "",
            "hello world",
            r#"a - - [yesterday] "GET / HTTP/1.1" 200 1"#,
            r#"a - - [01/Foo/2026:00:00:00 +0000] "GET / HTTP/1.1" 200 1"#,
            r#"a - - [01/Jan/2026:00:00:00 +0000] "GET / HTTP/1.1 200 1"#,
            r#"a - - [01/Jan/2026:00:00:00 +0000] "GET / HTTP/1.1" ok 1"#,
            r#"a - - [01/Jan/2026:00:00:00 +0000] "GET / HTTP/1.1" 200 1 "-""#,
            r#"a - - [01/Jan/2026:00:00:00 +0000] "GET / HTTP/1.1" 200 1 "-" "-" more"#,
        ] {
            assert!(parse(line).is_none(), "{line}");
        }
    }
}
