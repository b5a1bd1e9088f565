//! Who the puller is to the content manager: a secret that is read from a file, sent, and shown nowhere.
//!
//! SECURITY: a secret never comes from the command line or the environment, where others could read it. Its type prints as its
//! kind, its header is marked sensitive, and it goes to the configured origin only, wherever that redirects to. The file is read at each sync, so a token that the kubelet rotates needs no restart.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use lifecycle::exit::Exit;
use reqwest::RequestBuilder;

/// Files with secrets; each is read again at each sync.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Credentials")]
pub(crate) struct Credentials {
    /// File with a bearer token
    #[arg(long, value_name = "FILE")]
    bearer_token_file: Option<PathBuf>,

    /// File with user:password
    #[arg(long, value_name = "FILE", conflicts_with = "bearer_token_file")]
    basic_auth_file: Option<PathBuf>,

    /// File with headers that the source wants, one "Name: value" a line, such as GitLab's PRIVATE-TOKEN; repeatable
    #[arg(long = "header-file", value_name = "FILE")]
    pub(crate) header_files: Vec<PathBuf>,
}

impl Credentials {
    pub(crate) fn are_sent(&self) -> bool {
        self.bearer_token_file.is_some() || self.basic_auth_file.is_some() || !self.header_files.is_empty()
    }

    /// Reads the secret as it is now, where there is one.
    pub(crate) fn read(&self) -> Result<Option<Credential>, CredentialError> {
        if let Some(path) = &self.bearer_token_file {
            let token = read_line(path)?;
            if !token.is_ascii() || token.contains(' ') {
                let why = "a bearer token has neither spaces nor letters beyond ASCII";
                return Err(CredentialError::malformed(path, why));
            }
            return Ok(Some(Credential::Bearer(token)));
        }
        let Some(path) = &self.basic_auth_file else { return Ok(None) };
        match read_line(path)?.split_once(':') {
            Some((user, password)) => Ok(Some(Credential::Basic(user.to_owned(), password.to_owned()))),
            None => Err(CredentialError::malformed(path, "it is not user:password")),
        }
    }
}

/// The one line of a file.
fn read_line(path: &Path) -> Result<String, CredentialError> {
    let text = fs::read_to_string(path).map_err(CredentialError::unreadable(path))?;
    // Editors and `echo` end a file with a line break, which is no part of the secret.
    let secret = text.trim_end_matches(['\r', '\n']);
    if secret.is_empty() {
        return Err(CredentialError::malformed(path, "it is empty"));
    }
    if secret.chars().any(char::is_control) {
        return Err(CredentialError::malformed(path, "it has more than one line, or a control character"));
    }
    Ok(secret.to_owned())
}

/// A secret that was read.
#[derive(Clone)]
pub(crate) enum Credential {
    /// A bearer token (RFC 6750).
    Bearer(String),
    /// User and password (RFC 7617).
    Basic(String, String),
}

/// Why there is no secret to send.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CredentialError {
    /// The file is not there, or not ours to read.
    #[error("cannot read the credential {path}: {cause}", path = path.display())]
    Unreadable { path: PathBuf, cause: io::Error },
    #[error("the credential in {path} cannot be sent: {why}", path = path.display())]
    Malformed {
        path: PathBuf,
        /// What is wrong with it, without saying what it is.
        why: &'static str,
    },
}

impl CredentialError {
    pub(super) fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |cause| Self::Unreadable { path: path.to_owned(), cause }
    }

    pub(super) fn malformed(path: &Path, why: &'static str) -> Self {
        Self::Malformed { path: path.to_owned(), why }
    }

    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Unreadable { .. } => Exit::Io,
            Self::Malformed { .. } => Exit::Refused,
        }
    }
}

impl Credential {
    /// Adds it to a request.
    pub(crate) fn authorize(&self, request: RequestBuilder) -> RequestBuilder {
        // Both mark the header as sensitive, so that no layer prints it.
        match self {
            Self::Bearer(token) => request.bearer_auth(token),
            Self::Basic(user, password) => request.basic_auth(user, Some(password)),
        }
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Bearer(_) => "Bearer(…)",
            Self::Basic(..) => "Basic(…)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Credentials =
        Credentials { bearer_token_file: None, basic_auth_file: None, header_files: Vec::new() };

    type Login = fn(PathBuf) -> Credentials;
    const BEARER: Login = |path| Credentials { bearer_token_file: Some(path), ..NONE };
    const BASIC: Login = |path| Credentials { basic_auth_file: Some(path), ..NONE };

    fn read(login: Login, text: &str) -> Result<Option<Credential>, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        login(file.path().to_owned()).read().map_err(|error| error.to_string())
    }

    #[test]
    fn a_secret_is_the_file_without_its_last_line_break() {
        assert!(matches!(read(BEARER, "tok.en\n"), Ok(Some(Credential::Bearer(token))) if token == "tok.en"));
        let basic = read(BASIC, "me:pass: word\r\n");
        assert!(
            matches!(basic, Ok(Some(Credential::Basic(user, word))) if user == "me" && word == "pass: word")
        );
        assert!(matches!(NONE.read(), Ok(None)));
    }

    #[test]
    fn what_cannot_be_sent_is_refused_and_not_shown() {
        for (login, text, why) in [
            (BEARER, "\n", "empty"),
            (BEARER, "secret\nsecret", "more than one line"),
            (BEARER, "secret secret", "spaces"),
            (BASIC, "secret", "user:password"),
        ] {
            let error = read(login, text).unwrap_err();
            assert!(error.contains(why) && !error.contains("secret"), "{error}");
        }
        assert!(BEARER("/no/such".into()).read().is_err());
        assert!(!format!("{:?}", Credential::Basic("secret".into(), "secret".into())).contains("secret"));
    }
}
