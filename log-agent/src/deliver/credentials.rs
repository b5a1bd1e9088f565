//! The agent's credentials and the roots that it trusts: from files, which are read again when they change.
//!
//! SECURITY: a secret comes from a file, never from the command line or the environment, where others could read it; its types print
//! nothing of it, and its header is marked as sensitive, so that no layer does. It goes to the sink that it was configured for: no
//! redirect is followed.

use std::fmt;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lifecycle::blocking;
use lifecycle::exit::{Exit, Failure};
use reqwest::header::{
    AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderName,
    HeaderValue, TRANSFER_ENCODING,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

/// How often the files are looked at, while something is sent.
const PERIOD: Duration = Duration::from_secs(1);

/// What the agent itself says of a request.
const OURS: [HeaderName; 6] =
    [CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, TRANSFER_ENCODING];

/// The files of one sink, and the user who has no secret.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CredentialFiles {
    /// `--ca-file`
    pub(crate) ca: Option<PathBuf>,
    /// `--client-cert-file`
    pub(crate) client_cert: Option<PathBuf>,
    /// `--client-key-file`
    pub(crate) client_key: Option<PathBuf>,
    /// `--header-file`
    pub(crate) headers: Option<PathBuf>,
    /// `--bearer-token-file`
    pub(crate) bearer_token: Option<PathBuf>,
    /// `--basic-auth-file`
    pub(crate) basic_auth: Option<PathBuf>,
    /// `--forward-shared-key-file`
    pub(crate) shared_key: Option<PathBuf>,
    /// `--forward-user`
    pub(crate) user: Option<String>,
    /// `--forward-password-file`
    pub(crate) password: Option<PathBuf>,
}

/// What was in them.
pub(super) struct Credentials {
    /// For https and forward+tls.
    pub(super) tls: Arc<ClientConfig>,
    /// For every request.
    pub(super) headers: HeaderMap,
    /// For the handshake of Forward.
    pub(super) shared_key: Option<Vec<u8>>,
    pub(super) user: Option<String>,
    pub(super) password: Vec<u8>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Credentials(…)")
    }
}

impl CredentialFiles {
    fn all(&self) -> impl Iterator<Item = &Path> {
        let files = [
            &self.ca,
            &self.client_cert,
            &self.client_key,
            &self.headers,
            &self.bearer_token,
            &self.basic_auth,
            &self.shared_key,
            &self.password,
        ];
        files.into_iter().flatten().map(PathBuf::as_path)
    }

    /// What tells one content of the files from another.
    fn stamps(&self) -> Vec<Option<[i64; 6]>> {
        let stamp = |of: Metadata| {
            let numbers = [of.ino().cast_signed(), of.size().cast_signed()];
            [numbers[0], numbers[1], of.mtime(), of.mtime_nsec(), of.ctime(), of.ctime_nsec()]
        };
        self.all().map(|file| fs::metadata(file).ok().map(stamp)).collect()
    }

    /// Reads them; an error names the flag and the file.
    fn read(&self, encrypted: bool) -> Result<Credentials, String> {
        // The world's authorities are a megabyte of memory, which a sink that is not encrypted does without.
        let roots = match (&self.ca, encrypted) {
            (Some(ca), _) => read_certificates(ca).map_err(named("--ca-file", ca))?,
            (None, true) => world_roots(),
            (None, false) => Vec::new(),
        };
        let identity = match (&self.client_cert, &self.client_key) {
            (Some(cert), Some(key)) => {
                let certificates = read_certificates(cert).map_err(named("--client-cert-file", cert))?;
                let key = read_key(key).map_err(named("--client-key-file", key))?;
                Some((certificates, key))
            }
            _ => None,
        };
        let tls = tls_client(roots, identity)?;
        let mut headers = HeaderMap::new();
        if let Some(file) = &self.headers {
            headers = read_text(file)
                .and_then(|text| parse_headers(&text))
                .map_err(named("--header-file", file))?;
        }
        let authorization = match (&self.bearer_token, &self.basic_auth) {
            (Some(file), _) => {
                Some(("--bearer-token-file", file, read_line(file).and_then(|token| bearer(&token))))
            }
            (None, Some(file)) => {
                Some(("--basic-auth-file", file, read_line(file).and_then(|login| basic(&login))))
            }
            (None, None) => None,
        };
        if let Some((flag, file, header)) = authorization {
            let header =
                header.and_then(|text| HeaderValue::try_from(text).map_err(|error| error.to_string()));
            let mut header = header.map_err(named(flag, file))?;
            header.set_sensitive(true);
            if headers.insert(AUTHORIZATION, header).is_some() {
                return Err(named(flag, file)("the header file has an Authorization, too".to_owned()));
            }
        }
        let secret = |flag, file: &Option<PathBuf>| match file {
            Some(file) => read_line(file).map(|line| Some(line.into_bytes())).map_err(named(flag, file)),
            None => Ok(None),
        };
        let shared_key = secret("--forward-shared-key-file", &self.shared_key)?;
        let password = secret("--forward-password-file", &self.password)?.unwrap_or_default();
        Ok(Credentials { tls: Arc::new(tls), headers, shared_key, user: self.user.clone(), password })
    }
}

fn named(flag: &str, file: &Path) -> impl Fn(String) -> String {
    let place = format!("{flag} {}", file.display());
    move |why| format!("{place}: {why}")
}

fn read_text(file: &Path) -> Result<String, String> {
    fs::read_to_string(file).map_err(|error| error.to_string())
}

/// A secret is its file without the line break at its end, which editors and `echo` add.
fn one_line(text: &str) -> Result<&str, String> {
    let line = text.trim_end_matches(['\r', '\n']);
    if line.is_empty() {
        return Err("it is empty; put the secret into it".to_owned());
    }
    if line.chars().any(char::is_control) {
        return Err("it has more than one line, or a control character".to_owned());
    }
    Ok(line)
}

fn read_line(file: &Path) -> Result<String, String> {
    Ok(one_line(&read_text(file)?)?.to_owned())
}

fn bearer(token: &str) -> Result<String, String> {
    if !token.is_ascii() || token.contains(' ') {
        return Err("a bearer token has neither spaces nor letters beyond ASCII".to_owned());
    }
    Ok(format!("Bearer {token}"))
}

fn basic(login: &str) -> Result<String, String> {
    if !login.contains(':') {
        return Err("it is not written user:password".to_owned());
    }
    Ok(format!("Basic {}", STANDARD.encode(login)))
}

/// One header a line, `Name: value`; empty lines and lines that begin with `#` are passed over.
fn parse_headers(text: &str) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (number, line) in text.lines().enumerate().map(|(number, line)| (number + 1, line.trim())) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        // SECURITY: what is wrong is told by its line, not by its text.
        let (name, value) =
            line.split_once(':').ok_or_else(|| format!("line {number} is not written Name: value"))?;
        let name: HeaderName =
            name.trim().parse().map_err(|_| format!("line {number} does not begin with a header's name"))?;
        if OURS.contains(&name) {
            return Err(format!("line {number}: {name} is for the agent to set"));
        }
        let mut value = HeaderValue::from_str(value.trim())
            .map_err(|_| format!("line {number}: the value has characters that a header cannot have"))?;
        value.set_sensitive(true);
        headers.append(name, value);
    }
    if headers.is_empty() {
        Err("no header in it; write one a line, Name: value".to_owned())
    } else {
        Ok(headers)
    }
}

/// The roots that the world trusts, compiled in.
fn world_roots() -> Vec<CertificateDer<'static>> {
    webpki_root_certs::TLS_SERVER_ROOT_CERTS.to_vec()
}

/// Certificates from a PEM file.
fn read_certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let refused = |why: String| format!("{why}; it has to hold certificates in PEM");
    let found: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(file).map_err(|error| refused(error.to_string()))?.collect();
    match found {
        Ok(certificates) if certificates.is_empty() => Err(refused("no certificate in it".to_owned())),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(refused(error.to_string())),
    }
}

/// A private key from a PEM file.
fn read_key(file: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_file(file)
        .map_err(|error| format!("{error}; it has to hold a private key in PEM"))
}

/// A client that trusts these roots and, where it is asked, shows a certificate of its own.
fn tls_client(
    roots: Vec<CertificateDer<'static>>,
    identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
) -> Result<ClientConfig, String> {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(roots);
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(store);
    match identity {
        Some((certificates, key)) => builder.with_client_auth_cert(certificates, key).map_err(|error| {
            format!("--client-cert-file and --client-key-file: {error}; the key has to be the certificate's")
        }),
        None => Ok(builder.with_no_client_auth()),
    }
}

/// Credentials that follow their files.
#[derive(Debug)]
pub(super) struct WatchedCredentials {
    sink: String,
    files: CredentialFiles,
    encrypted: bool,
    stamps: Vec<Option<[i64; 6]>>,
    looked: Instant,
    current: Arc<Credentials>,
    /// Why the files cannot be used as they are now, so that it is said once.
    failure: Option<String>,
}

impl WatchedCredentials {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// 78 where one of them cannot be used.
    pub(super) fn read(sink: &str, files: &CredentialFiles, encrypted: bool) -> Result<Self, Failure> {
        let stamps = files.stamps();
        let current = files.read(encrypted).map_err(|why| Failure::new(Exit::Refused, why))?;
        Ok(Self {
            sink: sink.to_owned(),
            files: files.clone(),
            encrypted,
            stamps,
            looked: Instant::now(),
            current: Arc::new(current),
            failure: None,
        })
    }

    pub(super) fn current(&self) -> &Credentials {
        &self.current
    }

    /// Reads the files again where they have changed, and says whether there is something new. Where they cannot be used, what was
    /// read before stays.
    pub(super) async fn refresh(&mut self) -> bool {
        if self.files.all().next().is_none() || self.looked.elapsed() < PERIOD {
            return false;
        }
        let (files, stamps, encrypted) = (self.files.clone(), self.stamps.clone(), self.encrypted);
        let changed = blocking(move || {
            // Before they are read: a change in between is found at the next look.
            let now = files.stamps();
            (now != stamps).then(|| (now, files.read(encrypted)))
        });
        let changed = changed.await;
        self.looked = Instant::now();
        match changed {
            None => false,
            Some((stamps, Ok(credentials))) => {
                tracing::info!(sink = self.sink, "its credentials have changed and were read again");
                (self.stamps, self.current, self.failure) = (stamps, Arc::new(credentials), None);
                true
            }
            Some((_, Err(error))) => {
                if self.failure.as_ref() != Some(&error) {
                    tracing::warn!(
                        sink = self.sink,
                        error,
                        "its credentials have changed and cannot be used: those before stay"
                    );
                    self.failure = Some(error);
                }
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_one_a_line() {
        let headers =
            parse_headers("# a comment\n\nX-Scope-OrgID: tenant\r\nAuthorization: ApiKey a:b==\n").unwrap();
        assert_eq!(headers["x-scope-orgid"], "tenant");
        assert_eq!(headers["authorization"], "ApiKey a:b==");
        assert!(headers.values().all(HeaderValue::is_sensitive));
        for (text, named) in [
            ("", "no header"),
            ("X-A: b\nsecret", "line 2"),
            ("a b: secret", "line 1"),
            ("Content-Length: 1", "content-length"),
            ("X-A: secret\u{1}", "line 1"),
        ] {
            let error = parse_headers(text).unwrap_err();
            assert!(error.contains(named) && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_secret_is_its_file_without_the_last_line_break() {
        assert_eq!(one_line("a b\r\n"), Ok("a b"));
        assert!(one_line("\n").is_err() && one_line("a\nb").is_err());
        assert!(bearer("a b").is_err() && basic("user").is_err());
        assert_eq!(basic("user:a:b").unwrap(), "Basic dXNlcjphOmI=");
    }
}
