//! What a server has to offer: its capabilities, and which object the followed ref names.

use std::io::{self, Read};

use super::object_id::{ObjectFormat, ObjectId};
use super::pkt_line::{self, DELIMITER, FLUSH, PktLine, malformed};

/// What is followed of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum GitRef {
    /// The remote's `HEAD`.
    Head,
    /// A branch or a tag; in full where it begins with `refs/`.
    Name(String),
    /// One commit, or an annotated tag of one. Neither ever changes.
    Commit(ObjectId),
}

/// What the server understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Server {
    pub(super) version: Version,
    pub(super) format: ObjectFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// Refs come with the first answer, and only then.
    V0,
    /// One command a request.
    V2,
}

/// What the followed ref names now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tip {
    /// What to ask for: the commit, or the annotated tag that names it.
    pub(super) wanted: ObjectId,
    /// The commit; where the id of an annotated tag is followed, that id until the tag has arrived.
    pub(crate) commit: ObjectId,
}

impl Tip {
    pub(super) fn of_commit(commit: ObjectId) -> Self {
        Self { wanted: commit, commit }
    }

    /// Whether both lead to the same commit.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.wanted == other.wanted || self.commit == other.commit
    }
}

/// The followed ref is not there, or is not one.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RefError {
    #[error("the repository is empty: it has no commit yet")]
    Empty,
    #[error("the repository's HEAD names a branch that is not there; name one with --ref")]
    NoHead,
    #[error("the repository has neither a branch nor a tag {0:?}; see --ref")]
    NotFound(String),
    #[error("{0:?} is a branch and a tag; write --ref refs/heads/{0} or --ref refs/tags/{0}")]
    Ambiguous(String),
    #[error("the repository uses {0}, and --ref is no such id")]
    OtherFormat(&'static str),
}

/// A ref with the object that it names, and the one behind an annotated tag.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RefLine {
    name: String,
    object: ObjectId,
    peeled: Option<ObjectId>,
}

impl std::str::FromStr for GitRef {
    type Err = String;

    /// The rules of `git check-ref-format(1)` that keep one name one line of the protocol.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(commit) = ObjectId::parse(text) {
            return Ok(Self::Commit(commit));
        }
        let bad = |character: char| character.is_control() || " ~^:?*[\\".contains(character);
        if text.is_empty()
            || text.starts_with(['-', '/'])
            || text.ends_with(['/', '.'])
            || text.contains("..")
            || text.contains(bad)
        {
            return Err(
                "it is neither a branch, a tag nor the full id of a commit (40 or 64 lower-case digits)"
                    .to_owned(),
            );
        }
        Ok(if text == "HEAD" { Self::Head } else { Self::Name(text.to_owned()) })
    }
}

impl GitRef {
    /// The full names that it can stand for.
    fn candidates(&self) -> Vec<String> {
        match self {
            Self::Head => vec!["HEAD".to_owned()],
            Self::Name(name) if name.starts_with("refs/") => vec![name.clone()],
            Self::Name(name) => vec![format!("refs/heads/{name}"), format!("refs/tags/{name}")],
            Self::Commit(_) => Vec::new(),
        }
    }

    /// Finds it among refs.
    pub(super) fn find(&self, server: Server, refs: &[RefLine]) -> Result<Tip, RefError> {
        if let Self::Commit(commit) = self {
            if commit.format() != server.format {
                return Err(RefError::OtherFormat(server.format.name()));
            }
            return Ok(Tip::of_commit(*commit));
        }
        let candidates = self.candidates();
        let mut found = refs.iter().filter(|line| candidates.contains(&line.name));
        match (found.next(), found.next(), self) {
            (Some(line), None, _) => {
                Ok(Tip { wanted: line.object, commit: line.peeled.unwrap_or(line.object) })
            }
            (Some(_), Some(_), Self::Name(name)) => Err(RefError::Ambiguous(name.clone())),
            (None, _, Self::Name(name)) => Err(RefError::NotFound(name.clone())),
            _ if refs.is_empty() && server.version == Version::V0 => Err(RefError::Empty),
            _ => Err(RefError::NoHead),
        }
    }

    /// The body of the request that lists it (protocol 2).
    pub(super) fn list_request(&self, server: Server) -> String {
        let mut request = String::new();
        pkt_line::write(&mut request, "command=ls-refs");
        capabilities(&mut request, server);
        request.push_str(DELIMITER);
        pkt_line::write(&mut request, "peel");
        for name in self.candidates() {
            pkt_line::write(&mut request, &format!("ref-prefix {name}"));
        }
        request.push_str(FLUSH);
        request
    }
}

/// The capabilities that begin a command of protocol 2.
pub(super) fn capabilities(request: &mut String, server: Server) {
    pkt_line::write(request, AGENT);
    if server.format != ObjectFormat::Sha1 {
        pkt_line::write(request, &format!("object-format={}", server.format.name()));
    }
}

/// Who asks.
pub(super) const AGENT: &str = concat!("agent=file-puller/", env!("CARGO_PKG_VERSION"));

/// Reads the answer to `GET …/info/refs`: the server's capabilities and, before protocol 2, its refs.
pub(super) fn read_advertisement(input: &mut impl Read) -> io::Result<(Server, Vec<RefLine>)> {
    let mut first = PktLine::read(input)?;
    if let Some(PktLine::Data(line)) = &first
        && line.starts_with(b"# service=")
    {
        PktLine::read(input)?;
        first = PktLine::read(input)?;
    }
    let Some(first) = first.map(PktLine::text).transpose()?.flatten() else {
        return Err(malformed("it advertises nothing"));
    };
    let mut server = Server { version: Version::V0, format: ObjectFormat::Sha1 };
    if first == "version 2" {
        server.version = Version::V2;
        while let Some(line) = next_text(input)? {
            if let Some(name) = line.strip_prefix("object-format=") {
                server.format = format_named(name)?;
            }
        }
        return Ok((server, Vec::new()));
    }
    // The first ref has the capabilities behind a NUL.
    let (line, capabilities) = first.split_once('\0').unwrap_or((&first, ""));
    for capability in capabilities.split(' ') {
        if let Some(name) = capability.strip_prefix("object-format=") {
            server.format = format_named(name)?;
        }
    }
    let mut refs: Vec<RefLine> = Vec::new();
    let mut line = Some(line.to_owned());
    while let Some(text) = line.take() {
        let (object, name) = text.split_once(' ').ok_or_else(|| malformed("it advertises no refs"))?;
        let object = id(object)?;
        match (name.strip_suffix("^{}"), refs.last_mut()) {
            // Protocol 0 has no other way to say that there are capabilities and no refs.
            (Some("capabilities"), None) => {}
            (Some(tag), Some(last)) if last.name == tag => last.peeled = Some(object),
            _ => refs.push(RefLine { name: name.to_owned(), object, peeled: None }),
        }
        line = next_text(input)?;
    }
    Ok((server, refs))
}

/// Reads the answer to `ls-refs`.
pub(super) fn read_refs(input: &mut impl Read) -> io::Result<Vec<RefLine>> {
    let mut refs = Vec::new();
    while let Some(line) = next_text(input)? {
        let mut words = line.split(' ');
        let (Some(object), Some(name)) = (words.next(), words.next()) else {
            return Err(malformed("it lists no refs"));
        };
        let peeled = words.find_map(|word| word.strip_prefix("peeled:")).map(id).transpose()?;
        refs.push(RefLine { name: name.to_owned(), object: id(object)?, peeled });
    }
    Ok(refs)
}

fn next_text(input: &mut impl Read) -> io::Result<Option<String>> {
    match PktLine::read(input)? {
        Some(line) => line.text(),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn id(text: &str) -> io::Result<ObjectId> {
    ObjectId::parse(text).ok_or_else(|| malformed(format!("it lists {text:?} as an object")))
}

fn format_named(name: &str) -> io::Result<ObjectFormat> {
    ObjectFormat::of_name(name).ok_or_else(|| {
        malformed(format!("its object format is {name:?}, and only sha1 and sha256 are followed"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "30d74d258442c7c65512eafab474568dd706c430";
    const B: &str = "4b825dc642cb6eb9a060e54bf8d69288fbee4904";

    const V2: Server = Server { version: Version::V2, format: ObjectFormat::Sha1 };

    fn frames(lines: &[&str]) -> String {
        let mut frames = String::new();
        for line in lines {
            match *line {
                FLUSH => frames.push_str(FLUSH),
                line => pkt_line::write(&mut frames, line),
            }
        }
        frames
    }

    #[test]
    fn version_2_is_capabilities_then_refs() {
        let advertised = frames(&[
            "# service=git-upload-pack",
            FLUSH,
            "version 2",
            "ls-refs=unborn",
            "object-format=sha256",
            FLUSH,
        ]);
        let (server, refs) = read_advertisement(&mut advertised.as_bytes()).unwrap();
        assert_eq!((server, refs.len()), (Server { format: ObjectFormat::Sha256, ..V2 }, 0));
        let listed =
            frames(&[&format!("{A} refs/heads/main"), &format!("{B} refs/tags/v1 peeled:{A}"), FLUSH]);
        let refs = read_refs(&mut listed.as_bytes()).unwrap();
        let (a, b) = (ObjectId::parse(A).unwrap(), ObjectId::parse(B).unwrap());
        let find = |name: &str| name.parse::<GitRef>().unwrap().find(V2, &refs);
        assert_eq!(find("main"), Ok(Tip { wanted: a, commit: a }));
        assert_eq!(find("v1"), Ok(Tip { wanted: b, commit: a }));
        assert_eq!(find("refs/tags/v1"), find("v1"));
        assert_eq!(find("v2"), Err(RefError::NotFound("v2".into())));
        assert_eq!(find("HEAD"), Err(RefError::NoHead));
        assert_eq!(find(B), Ok(Tip { wanted: b, commit: b }));
    }

    #[test]
    fn version_0_is_refs_with_capabilities_behind_the_first() {
        let lines = [
            &format!("{A} HEAD\0multi_ack symref=HEAD:refs/heads/main"),
            &format!("{B} refs/tags/v1"),
            &format!("{A} refs/tags/v1^{{}}"),
        ];
        let lines: Vec<_> = lines.iter().map(|line| line.as_str()).chain([FLUSH]).collect();
        let (server, refs) = read_advertisement(&mut frames(&lines).as_bytes()).unwrap();
        assert_eq!(server.version, Version::V0);
        let tip = GitRef::Name("v1".to_owned()).find(server, &refs).unwrap();
        assert_eq!((tip.wanted.to_string(), tip.commit.to_string()), (B.to_owned(), A.to_owned()));
        assert!(GitRef::Head.find(server, &refs).is_ok());
        let empty = frames(&[&format!("{} capabilities^{{}}\0x", "0".repeat(40)), FLUSH]);
        let (server, refs) = read_advertisement(&mut empty.as_bytes()).unwrap();
        assert_eq!(GitRef::Head.find(server, &refs), Err(RefError::Empty));
    }

    #[test]
    fn a_branch_that_is_a_tag_too_is_not_guessed() {
        let listed = frames(&[&format!("{A} refs/heads/v1"), &format!("{A} refs/tags/v1"), FLUSH]);
        let refs = read_refs(&mut listed.as_bytes()).unwrap();
        assert_eq!(GitRef::Name("v1".into()).find(V2, &refs), Err(RefError::Ambiguous("v1".into())));
    }

    #[test]
    fn names_that_are_no_refs() {
        for name in ["", "-x", "a..b", "a b", "a\nb", "a/", "a^", "x:y"] {
            assert!(name.parse::<GitRef>().is_err(), "{name:?}");
        }
        assert_eq!("HEAD".parse(), Ok(GitRef::Head));
        assert!(matches!(A.parse(), Ok(GitRef::Commit(_))));
    }
}
