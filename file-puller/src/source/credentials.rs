//! Who the puller is to the content manager: a secret that is read from a file, sent, and shown nowhere.
//!
//! SECURITY: a secret never comes from the command line or the environment, where others could read it. Its type prints as its
//! kind, its header is marked sensitive, and it goes to the configured origin only, wherever that redirects to. The file is read at each sync, so a token that the kubelet rotates needs no restart.

use std::fmt;
use std::fs;
use std::path::PathBuf;

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
    /// Whether anything secret is sent.
    pub(crate) fn are_sent(&self) -> bool {
        self.bearer_token_file.is_some() || self.basic_auth_file.is_some() || !self.header_files.is_empty()
    }

    /// The one way to log in that was chosen.
    pub(crate) fn login(&self) -> Login {
        match (&self.bearer_token_file, &self.basic_auth_file) {
            (Some(path), _) => Login::Bearer(path.clone()),
            (None, Some(path)) => Login::Basic(path.clone()),
            (None, None) => Login::Anonymous,
        }
    }
}

/// How the puller says who it is, and where its secret lies.
#[derive(Debug, Clone)]
pub(crate) enum Login {
    /// It does not.
    Anonymous,
    /// A bearer token (RFC 6750).
    Bearer(PathBuf),
    /// User and password (RFC 7617).
    Basic(PathBuf),
}

/// A secret that was read.
#[derive(Clone)]
pub(crate) enum Credential {
    /// A token.
    Bearer(String),
    /// User and password.
    Basic(String, String),
}

/// Why there is no secret to send.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CredentialError {
    /// The file is not there, or not ours to read.
    #[error("cannot read the credential {path}: {cause}", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        cause: std::io::Error,
    },
    /// It holds something else.
    #[error("the credential in {path} cannot be sent: {why}", path = path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, without saying what it is.
        why: &'static str,
    },
}

impl CredentialError {
    /// The exit code for it.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Unreadable { .. } => Exit::Io,
            Self::Malformed { .. } => Exit::Refused,
        }
    }
}

impl Login {
    /// Reads the secret as it is now.
    pub(crate) fn read(&self) -> Result<Option<Credential>, CredentialError> {
        let path = match self {
            Self::Anonymous => return Ok(None),
            Self::Bearer(path) | Self::Basic(path) => path,
        };
        let malformed = |why| CredentialError::Malformed { path: path.clone(), why };
        let text = fs::read_to_string(path)
            .map_err(|cause| CredentialError::Unreadable { path: path.clone(), cause })?;
        // Editors and `echo` end a file with a line break, which is no part of the secret.
        let secret = text.trim_end_matches(['\r', '\n']);
        if secret.is_empty() {
            return Err(malformed("it is empty"));
        }
        if secret.chars().any(char::is_control) {
            return Err(malformed("it has more than one line, or a control character"));
        }
        if let Self::Bearer(_) = self {
            if !secret.is_ascii() || secret.contains(' ') {
                return Err(malformed("a bearer token has neither spaces nor letters beyond ASCII"));
            }
            return Ok(Some(Credential::Bearer(secret.to_owned())));
        }
        let (user, password) = secret.split_once(':').ok_or_else(|| malformed("it is not user:password"))?;
        Ok(Some(Credential::Basic(user.to_owned(), password.to_owned())))
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

    fn read(login: fn(PathBuf) -> Login, text: &str) -> Result<Option<Credential>, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        login(file.path().to_owned()).read().map_err(|error| error.to_string())
    }

    #[test]
    fn a_secret_is_the_file_without_its_last_line_break() {
        assert!(
            matches!(read(Login::Bearer, "tok.en\n"), Ok(Some(Credential::Bearer(token))) if token == "tok.en")
        );
        let basic = read(Login::Basic, "me:pass: word\r\n");
        assert!(
            matches!(basic, Ok(Some(Credential::Basic(user, word))) if user == "me" && word == "pass: word")
        );
        assert!(matches!(Login::Anonymous.read(), Ok(None)));
    }

    #[test]
    fn what_cannot_be_sent_is_refused_and_not_shown() {
        for (login, text, why) in [
            (Login::Bearer as fn(PathBuf) -> Login, "\n", "empty"),
            (Login::Bearer, "secret\nsecret", "more than one line"),
            (Login::Bearer, "secret secret", "spaces"),
            (Login::Basic, "secret", "user:password"),
        ] {
            let error = read(login, text).unwrap_err();
            assert!(error.contains(why) && !error.contains("secret"), "{error}");
        }
        assert!(Login::Bearer("/no/such".into()).read().is_err());
        assert!(!format!("{:?}", Credential::Basic("secret".into(), "secret".into())).contains("secret"));
    }
}
