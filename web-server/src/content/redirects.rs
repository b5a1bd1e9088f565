//! A release's `_redirects` file, as Netlify writes it: what is answered where there is no file.
//!
//! One rule a line: `/from /to [status][!]`. The first rule that matches counts, with or without a slash at the end of the
//! path. `*` at the end of a path stands for all that follows and is `:splat` in the target; `:name` stands for one
//! segment. The statuses 301 (which is also the default), 302, 303, 307 and 308 redirect; 200 and 404 answer with another
//! file of the same release. Files win over rules, unless a rule's status ends in `!`.
//!
//! What this server does not do (other sites behind 200, conditions, query parameters, rules for other hosts) is refused
//! by line and said; the other lines hold.

use http::StatusCode;

use crate::content::path::{ContentPath, encoded};

/// Where the file is in a release.
pub(crate) const PATH: &str = "/_redirects";
/// A larger file is not read: a rule costs time at every request that finds no file.
pub(crate) const MAX_SIZE: u64 = 256 * 1024;
/// Rules that count; further ones are refused.
const MAX_RULES: usize = 1_000;
/// What a target calls all that `*` stands for.
const SPLAT: &str = "splat";
/// A segment that any placeholder can stand for.
const SAMPLE: &str = "x";

/// The rules of one file.
#[derive(Debug, Default)]
pub(crate) struct Redirects {
    rules: Vec<Rule>,
    any_forced: bool,
}

/// A line that is not followed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) line: usize,
    pub(crate) reason: String,
}

/// What a rule makes of a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Go there: an absolute path or a URL of another site, percent-encoded.
    Redirect(StatusCode, String),
    /// Answer with this content of the release.
    Serve(StatusCode, ContentPath),
}

/// Whether something is found without a rule: only a forced rule matches there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// Content has this name.
    File,
    /// None has.
    NoFile,
}

#[derive(Debug)]
struct Rule {
    from: Vec<Segment>,
    to: String,
    status: StatusCode,
    forced: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Segment {
    Literal(String),
    Placeholder(String),
    Splat,
}

impl Segment {
    /// What a target calls it.
    fn name(&self) -> Option<&str> {
        match self {
            Self::Literal(_) => None,
            Self::Placeholder(name) => Some(name),
            Self::Splat => Some(SPLAT),
        }
    }
}

impl Redirects {
    /// Reads a file, and says which lines of it do not count.
    pub(crate) fn parse(text: &str) -> (Self, Vec<Refused>) {
        let mut redirects = Self::default();
        let mut refused = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let rule = match Rule::parse(line) {
                Ok(None) => continue,
                Ok(Some(_)) if redirects.rules.len() >= MAX_RULES => {
                    Err(format!("only {MAX_RULES} rules are followed"))
                }
                Ok(Some(rule)) => Ok(rule),
                Err(reason) => Err(reason),
            };
            match rule {
                Ok(rule) => {
                    redirects.any_forced |= rule.forced;
                    redirects.rules.push(rule);
                }
                Err(reason) => refused.push(Refused { line: at + 1, reason }),
            }
        }
        (redirects, refused)
    }

    /// How many rules there are.
    pub(crate) fn len(&self) -> usize {
        self.rules.len()
    }

    /// What the first rule that matches makes of a path, where that rule is forced: it does not matter then what is found.
    pub(crate) fn find_forced(&self, path: &ContentPath) -> Option<Action> {
        if !self.any_forced {
            return None;
        }
        let segments = requested_segments(path);
        let mut rules = self.rules.iter();
        let (forced, action) = rules.find_map(|rule| Some((rule.forced, rule.apply(&segments)?)))?;
        forced.then_some(action)
    }

    /// What the first rule that matches makes of a path.
    pub(crate) fn find(&self, path: &ContentPath, when: When) -> Option<Action> {
        if when == When::File && !self.any_forced {
            return None;
        }
        let segments = requested_segments(path);
        let mut rules = self.rules.iter().filter(|rule| rule.forced || when == When::NoFile);
        rules.find_map(|rule| rule.apply(&segments))
    }
}

fn requested_segments(path: &ContentPath) -> Vec<&str> {
    path.requested().split('/').filter(|segment| !segment.is_empty()).collect()
}

impl Rule {
    /// `None` for a blank line or a comment.
    fn parse(line: &str) -> Result<Option<Self>, String> {
        // As Netlify has it: `#` begins a comment where a word could begin.
        let mut words = line.split_whitespace().take_while(|word| !word.starts_with('#'));
        let Some(from) = words.next() else { return Ok(None) };
        let to = words.next().ok_or("a rule is a path and a target, such as: /old /new 301")?;
        let status = words.next();
        if to.contains('=') && !to.starts_with('/') && !to.contains("://") {
            return Err(format!("{to:?}: query parameters are not supported"));
        }
        if let Some(more) = words.next() {
            return Err(format!("{more:?}: conditions are not supported"));
        }
        let (status, forced) = match status {
            None => (StatusCode::MOVED_PERMANENTLY, false),
            Some(text) => status_code(text)?,
        };
        let segments = segments(from)?;
        check_is_asked_for(from, &segments)?;
        check_target(to, status, &segments)?;
        let rule = Self { from: segments, to: to.to_owned(), status, forced };
        rule.check_is_served()?;
        Ok(Some(rule))
    }

    /// Refuses a target that no request could get, whatever its placeholders stand for.
    fn check_is_served(&self) -> Result<(), String> {
        if self.status.is_redirection() {
            return Ok(());
        }
        let names = self.from.iter().filter_map(Segment::name);
        let values: Vec<_> = names.map(|name| (name, SAMPLE.to_owned())).collect();
        match content_path(&self.target(&values)) {
            Some(path) if !path.is_at(PATH) => Ok(()),
            _ => Err(format!("{:?}: no file is given out under that name", self.to)),
        }
    }

    fn apply(&self, path: &[&str]) -> Option<Action> {
        let values = self.captures(path)?;
        let target = self.target(&values);
        if self.status.is_redirection() {
            return Some(Action::Redirect(self.status, target));
        }
        Some(Action::Serve(self.status, content_path(&target)?))
    }

    /// What the placeholders stand for, percent-encoded. `None` where the rule does not match.
    fn captures(&self, path: &[&str]) -> Option<Vec<(&str, String)>> {
        let mut values = Vec::new();
        let mut rest = path;
        for segment in &self.from {
            match (segment, rest.split_first()) {
                (Segment::Splat, _) => {
                    let splat: Vec<_> = rest.iter().map(|segment| encoded(segment)).collect();
                    values.push((SPLAT, splat.join("/")));
                    return Some(values);
                }
                (Segment::Literal(literal), Some((first, after))) if literal == first => rest = after,
                (Segment::Placeholder(name), Some((first, after))) => {
                    values.push((name, encoded(first)));
                    rest = after;
                }
                (Segment::Literal(_) | Segment::Placeholder(_), _) => return None,
            }
        }
        rest.is_empty().then_some(values)
    }

    fn target(&self, values: &[(&str, String)]) -> String {
        let mut target = String::with_capacity(self.to.len());
        let mut rest = self.to.as_str();
        while let Some(at) = rest.find(':') {
            let (before, after) = rest.split_at(at);
            target.push_str(before);
            let name = name_length(&after[1..]);
            match values.iter().find(|(known, _)| *known == &after[1..=name]) {
                Some((_, value)) => target.push_str(value),
                None => target.push_str(&after[..=name]),
            }
            rest = &after[1 + name..];
        }
        target.push_str(rest);
        // SECURITY: an empty value must not leave `//host`, which would be another site.
        if target.starts_with("//") { format!("/{}", target.trim_start_matches('/')) } else { target }
    }
}

/// The content that a target names.
fn content_path(target: &str) -> Option<ContentPath> {
    let (path, _query) = target.split_once(['?', '#']).unwrap_or((target, ""));
    ContentPath::from_target(path).ok()
}

fn name_length(text: &str) -> usize {
    text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len())
}

fn status_code(text: &str) -> Result<(StatusCode, bool), String> {
    let (code, forced) = text.strip_suffix('!').map_or((text, false), |code| (code, true));
    if code.contains('=') {
        return Err(format!("{text:?}: conditions are not supported"));
    }
    match code.parse() {
        Ok(code @ (200 | 301 | 302 | 303 | 307 | 308 | 404)) => {
            let status = StatusCode::from_u16(code).map_err(|error| error.to_string())?;
            Ok((status, forced))
        }
        _ => Err(format!("status {text:?} is none of 200, 301, 302, 303, 307, 308, 404")),
    }
}

fn segments(from: &str) -> Result<Vec<Segment>, String> {
    if from.contains("://") {
        return Err(format!("{from:?}: rules for other hosts are not supported"));
    }
    let path = from.strip_prefix('/').ok_or_else(|| format!("{from:?} does not begin with a slash"))?;
    if path.contains(['?', '&']) {
        return Err(format!("{from:?}: query parameters are not supported"));
    }
    let splat = path.strip_suffix('*').filter(|before| before.is_empty() || before.ends_with('/'));
    let plain = splat.unwrap_or(path);
    if plain.contains('*') {
        return Err(format!("{from:?}: an asterisk stands for whole segments, at the end"));
    }
    let mut segments = plain_segments(plain)?;
    segments.extend(splat.map(|_| Segment::Splat));
    Ok(segments)
}

fn plain_segments(path: &str) -> Result<Vec<Segment>, String> {
    let segment = |text: &str| match text.strip_prefix(':') {
        Some(name) if !name.is_empty() && name_length(name) == name.len() && name != SPLAT => {
            Ok(Segment::Placeholder(name.to_owned()))
        }
        Some(_) => Err(format!("{text:?} is no placeholder; write it like :name")),
        None => percent_encoding::percent_decode_str(text)
            .decode_utf8()
            .map(|text| Segment::Literal(text.into_owned()))
            .map_err(|_| format!("{text:?} is not UTF-8")),
    };
    path.split('/').filter(|text| !text.is_empty()).map(segment).collect()
}

/// Refuses a path that no request has: requests are normalised before rules are looked at, and hidden names are never found.
fn check_is_asked_for(from: &str, segments: &[Segment]) -> Result<(), String> {
    let sample = |segment: &str| match segment {
        "*" => SAMPLE.to_owned(),
        name if name.starts_with(':') => SAMPLE.to_owned(),
        literal => literal.to_owned(),
    };
    let sample: Vec<_> = from.split('/').map(sample).collect();
    let decoded = |segment: &Segment| match segment {
        Segment::Literal(literal) => literal.clone(),
        Segment::Placeholder(_) | Segment::Splat => SAMPLE.to_owned(),
    };
    let decoded: Vec<_> = segments.iter().map(decoded).collect();
    match ContentPath::from_target(&sample.join("/")) {
        Ok(path) if path.requested() == decoded.join("/") => Ok(()),
        _ => Err(format!("{from:?}: no request for content has such a path")),
    }
}

fn check_target(to: &str, status: StatusCode, from: &[Segment]) -> Result<(), String> {
    let elsewhere = to.starts_with("http://") || to.starts_with("https://");
    if !elsewhere && (!to.starts_with('/') || to.starts_with("//")) {
        return Err(format!("{to:?} is neither a path nor an http:// or https:// URL"));
    }
    if elsewhere && !status.is_redirection() {
        return Err(format!("{to:?}: this server is no proxy for other sites"));
    }
    if to.chars().any(|c| c.is_control() || c == '\\') || !to.is_ascii() {
        return Err(format!("{to:?}: a target is percent-encoded ASCII without backslashes"));
    }
    // Past the scheme's own colon and a port.
    let host_and_path = to.split_once("://").map_or("", |(_, rest)| rest);
    let host = host_and_path.split(['/', '?', '#']).next().unwrap_or_default();
    if elsewhere && !is_host(host) {
        return Err(format!("{to:?}: the host has to be written out"));
    }
    let path = if elsewhere { &host_and_path[host.len()..] } else { to };
    for at in path.match_indices(':').map(|(at, _)| at) {
        let name = &path[at + 1..=at + name_length(&path[at + 1..])];
        let known = match name {
            "" => true,
            SPLAT => from.contains(&Segment::Splat),
            name => {
                from.iter().any(|segment| matches!(segment, Segment::Placeholder(known) if known == name))
            }
        };
        if !known {
            return Err(format!(":{name} does not occur in the rule's path"));
        }
    }
    Ok(())
}

/// A name, and perhaps a port: nothing of it comes from the request.
fn is_host(text: &str) -> bool {
    let (name, port) = text.split_once(':').unwrap_or((text, "80"));
    let in_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    !name.is_empty() && name.bytes().all(in_name) && port.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn action(file: &str, path: &str, when: When) -> Option<Action> {
        let (redirects, refused) = Redirects::parse(file);
        assert_eq!(refused, []);
        redirects.find(&ContentPath::from_target(path).unwrap(), when)
    }

    #[track_caller]
    fn goes(file: &str, path: &str, status: u16, to: &str) {
        let expected = Action::Redirect(StatusCode::from_u16(status).unwrap(), to.to_owned());
        assert_eq!(action(file, path, When::NoFile), Some(expected), "{path}");
    }

    #[test]
    fn a_rule_is_about_a_path_with_or_without_a_slash_at_its_end() {
        let file = "# moved\n\n/old /new\n/old /never 302\n  /a/b\t/c?x=1#y   308 # why\n";
        goes(file, "/old", 301, "/new");
        goes(file, "/old/", 301, "/new");
        goes(file, "/a/b", 308, "/c?x=1#y");
        assert_eq!(action(file, "/old/er", When::NoFile), None);
        assert_eq!(action(file, "/", When::NoFile), None);
        for status in [301, 302, 303, 307, 308] {
            goes(
                &format!("/x https://example.com:8443/y {status}"),
                "/x",
                status,
                "https://example.com:8443/y",
            );
        }
    }

    #[test]
    fn a_splat_is_all_that_follows() {
        goes("/news/* /blog/:splat", "/news/2004/a%20b", 301, "/blog/2004/a%20b");
        goes("/news/* /blog/:splat", "/news", 301, "/blog/");
        goes("/* https://new.example/:splat 302", "/deep/er/", 302, "https://new.example/deep/er");
        goes("/n/:year/:slug /b/:slug-:year.html", "/n/2004/x", 301, "/b/x-2004.html");
        assert_eq!(action("/n/:year /b/:year", "/n/2004/x", When::NoFile), None);
    }

    #[test]
    fn no_target_becomes_another_site() {
        // SECURITY: the browser reads `//host` and `/\\host` as another site.
        goes("/r/* /:splat", "/r//evil.example", 301, "/evil.example");
        goes("/r/* /:splat/:splat", "/r/", 301, "/");
        goes("/r/* /:splat", "/r/%0d%0aSet-Cookie:x", 301, "/%0D%0ASet-Cookie:x");
    }

    #[test]
    fn only_an_exclamation_mark_wins_over_a_file() {
        let file = "/a /b 302\n/a /c 302!\n";
        assert_eq!(
            action(file, "/a", When::File),
            Some(Action::Redirect(StatusCode::FOUND, "/c".to_owned()))
        );
        goes(file, "/a", 302, "/b");
        assert_eq!(action("/a /b", "/a", When::File), None);
    }

    #[test]
    fn other_content_of_the_same_release() {
        let served = |path: &str| ContentPath::from_target(path).unwrap();
        let file = "/app/* /app/index.html 200\n/en/* /en/404.html 404\n";
        assert_eq!(
            action(file, "/app/x/y", When::NoFile),
            Some(Action::Serve(StatusCode::OK, served("/app/index.html")))
        );
        assert_eq!(
            action(file, "/en/x", When::NoFile),
            Some(Action::Serve(StatusCode::NOT_FOUND, served("/en/404.html")))
        );
    }

    #[test]
    fn what_can_match_is_not_refused() {
        for line in [
            "/ /a 200",
            "/* /:splat 200",
            "/.well-known/* /.well-known/:splat 200",
            "//a//:b /c/:b?x=1#y 404",
            "/caf%C3%A9 /.elsewhere 301",
        ] {
            assert_eq!(Redirects::parse(line).1, [], "{line}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused_by_line() {
        for (line, reason) in [
            ("/alone", "target"),
            ("old /new", "slash"),
            ("/old new", "neither a path"),
            ("/old //evil.example", "neither a path"),
            ("/old /new 418", "none of"),
            ("/old /new 200x", "none of"),
            ("/api/* https://api.example/:splat 200", "no proxy"),
            ("/ /us 302 Country=us", "conditions"),
            ("/ /us Language=de", "conditions"),
            ("/store id=:id /blog/:id 301", "query parameters"),
            ("/store id=:id", "query parameters"),
            ("http://old.example/* /new", "other hosts"),
            ("/a*b /c", "asterisk"),
            ("/a/* /:other", ":other"),
            ("/a/* https://:splat/x", "host"),
            ("/a/* https://:splat.example/x", "host"),
            ("/a /b\\c", "backslashes"),
            ("/a/:splat /b", "placeholder"),
            ("/.old/* /new", "no request"),
            ("/a%2Fb /new", "no request"),
            ("/a/../b /new", "no request"),
            ("/a%zz /new", "no request"),
            ("/a /.hidden 200", "no file"),
            ("/a /b%2Fc 200", "no file"),
            ("/a/* /.hidden/:splat?x 404", "no file"),
            ("/a /_redirects 200", "no file"),
        ] {
            let (redirects, refused) = Redirects::parse(&format!("/good /fine\n{line}\n"));
            assert_eq!((redirects.len(), refused.len()), (1, 1), "{line}: {refused:?}");
            assert!(refused[0].line == 2 && refused[0].reason.contains(reason), "{line}: {refused:?}");
        }
        let (redirects, refused) = Redirects::parse(&"/a /b\n".repeat(1_001));
        assert_eq!((redirects.len(), refused.len()), (1_000, 1));
    }

    #[test]
    fn what_is_found_does_not_matter_where_the_first_rule_that_matches_is_forced() {
        let (redirects, _) = Redirects::parse("/a /b\n/dir/* /b\n/* /x 302!\n");
        let forced = |path: &str| redirects.find_forced(&ContentPath::from_target(path).unwrap());
        assert_eq!(forced("/other"), Some(Action::Redirect(StatusCode::FOUND, "/x".to_owned())));
        assert_eq!((forced("/a"), forced("/dir/file")), (None, None));
        let (redirects, _) = Redirects::parse("/a /b\n");
        assert_eq!(redirects.find_forced(&ContentPath::from_target("/a").unwrap()), None);
    }
}
