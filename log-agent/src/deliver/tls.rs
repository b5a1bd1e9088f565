//! TLS for `https` and `forward+tls`: trusted roots and the client certificate.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

/// The roots that the world trusts, compiled in.
pub(super) fn world() -> Vec<CertificateDer<'static>> {
    webpki_root_certs::TLS_SERVER_ROOT_CERTS.to_vec()
}

/// Certificates from a PEM file.
pub(super) fn read_roots(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
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
pub(super) fn read_key(file: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_file(file)
        .map_err(|error| format!("{error}; it has to hold a private key in PEM"))
}

/// A client that trusts these roots and, where it is asked, shows a certificate of its own.
pub(super) fn client(
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
