//! TLS roots and the client certificate: PEM files that the flags name.
//!
//! They are read again at each sync, like the other credentials: certificates are short-lived, and rotation replaces
//! files under a running Pod. What has changed is the caller's to see, by comparing.

use std::fs;
use std::path::PathBuf;

use reqwest::{Certificate, ClientBuilder, Identity};

use super::credentials::CredentialError;

/// The files, as the flags name them.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "TLS")]
pub(crate) struct TlsFiles {
    /// File with CA certificates (PEM) to trust besides the public ones
    #[arg(long = "ca-file", value_name = "FILE")]
    ca: Option<PathBuf>,

    /// File with the certificate chain (PEM) to show to a source that asks for one
    #[arg(long = "client-cert-file", value_name = "FILE", requires = "client_key")]
    client_cert: Option<PathBuf>,

    /// File with its private key (PEM)
    #[arg(long = "client-key-file", value_name = "FILE", requires = "client_cert")]
    client_key: Option<PathBuf>,
}

/// What was in the files.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct TlsPems {
    ca: Option<(PathBuf, Vec<u8>)>,
    // The path is the certificate's; the bytes are the key and after it the chain.
    identity: Option<(PathBuf, Vec<u8>)>,
}

impl TlsFiles {
    /// Reads them as they are now.
    pub(crate) fn read(&self) -> Result<TlsPems, CredentialError> {
        let read = |path: &PathBuf| fs::read(path).map_err(CredentialError::unreadable(path));
        let ca = match &self.ca {
            Some(path) => Some((path.clone(), read(path)?)),
            None => None,
        };
        let identity = match (&self.client_cert, &self.client_key) {
            (Some(certificate), Some(key)) => {
                let pem = [read(key)?, b"\n".to_vec(), read(certificate)?].concat();
                Some((certificate.clone(), pem))
            }
            _ => None,
        };
        Ok(TlsPems { ca, identity })
    }
}

impl TlsPems {
    /// The same trust without an identity: who we are is for the source alone.
    #[must_use]
    pub(crate) fn anonymous(self) -> Self {
        Self { identity: None, ..self }
    }

    /// Whether there is a certificate of ours.
    pub(crate) fn has_identity(&self) -> bool {
        self.identity.is_some()
    }

    pub(crate) fn authorities(&self) -> Result<Vec<Certificate>, CredentialError> {
        let Some((path, pem)) = &self.ca else { return Ok(Vec::new()) };
        let why = match Certificate::from_pem_bundle(pem) {
            Ok(certificates) if certificates.is_empty() => "it has no CERTIFICATE in PEM form",
            Ok(certificates) => return Ok(certificates),
            Err(_) => "it is no list of certificates in PEM form",
        };
        Err(CredentialError::malformed(path, why))
    }

    /// Adds the identity to a client.
    pub(crate) fn identify(&self, client: ClientBuilder) -> Result<ClientBuilder, CredentialError> {
        let Some((path, pem)) = &self.identity else { return Ok(client) };
        let why = "it and --client-key-file have to be a certificate and a private key in PEM form";
        let identity = Identity::from_pem(pem).map_err(|_| CredentialError::malformed(path, why))?;
        Ok(client.identity(identity))
    }
}

impl std::fmt::Debug for TlsPems {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // SECURITY: one of them is a private key.
        out.write_str("TlsPems(…)")
    }
}
