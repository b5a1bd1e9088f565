//! Whom to trust behind `https` and `forward+tls`: the roots that the world trusts, compiled in, or those of `--ca-file`.

use std::path::Path;

use lifecycle::Ignore as _;
use lifecycle::exit::{Exit, Failure};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// Roots of trust.
#[derive(Debug, Clone)]
pub(crate) enum Roots {
    /// Those that browsers have.
    World,
    /// Only these.
    Only(Vec<CertificateDer<'static>>),
}

impl Roots {
    /// From a PEM file; without one, the world's.
    ///
    /// # Errors
    /// 78 where the file cannot be read or holds no certificate.
    pub(crate) fn read(file: Option<&Path>) -> Result<Self, Failure> {
        let Some(file) = file else { return Ok(Self::World) };
        let refused = |why: String| {
            Failure::new(
                Exit::Refused,
                format!("--ca-file {}: {why}; it has to hold certificates in PEM", file.display()),
            )
        };
        let found: Result<Vec<_>, _> =
            CertificateDer::pem_file_iter(file).map_err(|error| refused(error.to_string()))?.collect();
        match found {
            Ok(certificates) if certificates.is_empty() => Err(refused("no certificate in it".to_owned())),
            Ok(certificates) => Ok(Self::Only(certificates)),
            Err(error) => Err(refused(error.to_string())),
        }
    }

    /// All of them.
    pub(crate) fn certificates(&self) -> Vec<CertificateDer<'static>> {
        match self {
            Self::World => webpki_root_certs::TLS_SERVER_ROOT_CERTS.to_vec(),
            Self::Only(certificates) => certificates.clone(),
        }
    }
}

/// Makes ring the process's provider of cryptography.
pub(super) fn install() {
    // Fails only where one is installed already, which then is the same.
    rustls::crypto::ring::default_provider().install_default().ignore();
}
