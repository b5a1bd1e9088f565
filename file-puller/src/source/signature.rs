//! Whose word a manifest is: an optional ed25519 signature over its exact bytes, beside it as `manifest.json.sig`.
//!
//! SECURITY: with `--public-key`, an attacker who controls the content manager or the network can withhold content, but can neither
//! change nor invent any: each file is bound by its digest in the manifest, and the manifest by the signature. Nor can he show an
//! earlier manifest again, because one that was made before the published one is refused.

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer};

use super::credentials::CredentialError;

/// A signature is 88 characters; more than this is something else.
pub(crate) const MAX_LEN: u64 = 1024;
/// What comes before the 32 bytes of an ed25519 key in a SubjectPublicKeyInfo (RFC 8410, section 4).
const PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Signs manifests.
#[derive(Debug)]
pub(crate) struct SigningKey(Ed25519KeyPair);

/// Tells whether a manifest was signed with the key that belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PublicKey(Vec<u8>);

/// Why a manifest is not believed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SignatureError {
    /// The signature is of other bytes, or by another key.
    #[error("manifest refused: {url} is not its signature by --public-key")]
    Wrong { url: String },
    /// A validly signed manifest that is for another site, or of a time at which it cannot have been signed or is too old.
    #[error("manifest refused: {0}")]
    Refused(String),
}

impl SigningKey {
    /// Reads a private key, as `openssl genpkey -algorithm ed25519` writes it.
    pub(crate) fn read(path: &Path) -> Result<Self, CredentialError> {
        let why = "it is no ed25519 private key in PEM form (openssl genpkey -algorithm ed25519)";
        let malformed = || CredentialError::malformed(path, why);
        let der = PrivatePkcs8KeyDer::from_pem_slice(&read(path)?).map_err(|_| malformed())?;
        // OpenSSL leaves the public half out, so there is nothing to compare the private one with.
        let key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der());
        key.map(Self).map_err(|_| malformed())
    }

    /// The signature of these bytes: a line of base64.
    pub(crate) fn sign(&self, manifest: &[u8]) -> String {
        STANDARD.encode(self.0.sign(manifest)) + "\n"
    }
}

impl PublicKey {
    /// Reads a public key, as `openssl pkey -pubout` writes it.
    pub(crate) fn read(path: &Path) -> Result<Self, CredentialError> {
        let why = "it is no ed25519 public key in PEM form (openssl pkey -pubout)";
        let malformed = || CredentialError::malformed(path, why);
        let der = SubjectPublicKeyInfoDer::from_pem_slice(&read(path)?).map_err(|_| malformed())?;
        match der.strip_prefix(&PREFIX) {
            Some(key) if key.len() == 32 => Ok(Self(key.to_owned())),
            _ => Err(malformed()),
        }
    }

    /// Whether the signature is of these bytes, by this key's other half.
    pub(crate) fn verify(&self, manifest: &[u8], signature: &[u8]) -> bool {
        let Ok(signature) = STANDARD.decode(signature.trim_ascii()) else { return false };
        UnparsedPublicKey::new(&ED25519, &self.0).verify(manifest, &signature).is_ok()
    }
}

fn read(path: &Path) -> Result<Vec<u8>, CredentialError> {
    fs::read(path).map_err(CredentialError::unreadable(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Made by OpenSSL 3, for this test alone.
    const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIBYe3seU3ml5B2qqanJpmj7tX+j4qufZ0aU4l+nVz8jA
-----END PRIVATE KEY-----
";
    const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEACbxpJ8dHWUjor/rTbu7ENonmwb5H9gG3k76XY2Vw8u4=
-----END PUBLIC KEY-----
";

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn a_signature_is_of_these_bytes_by_this_key() {
        let key = SigningKey::read(file(PRIVATE).path()).unwrap();
        let public = PublicKey::read(file(PUBLIC).path()).unwrap();
        let signature = key.sign(b"manifest");
        assert!(public.verify(b"manifest", signature.as_bytes()));
        assert!(!public.verify(b"manifesto", signature.as_bytes()));
        assert!(!public.verify(b"manifest", key.sign(b"other").as_bytes()));
        assert!(!public.verify(b"manifest", b""));
        let mut other = public.clone();
        other.0[7] ^= 1;
        assert!(!other.verify(b"manifest", signature.as_bytes()));
    }

    #[test]
    fn what_is_no_key_is_refused_and_not_shown() {
        for error in [
            SigningKey::read(file(PUBLIC).path()).map(drop).unwrap_err(),
            PublicKey::read(file(PRIVATE).path()).map(drop).unwrap_err(),
            PublicKey::read(file("secret").path()).map(drop).unwrap_err(),
        ] {
            assert!(
                error.to_string().contains("ed25519") && !error.to_string().contains("secret"),
                "{error}"
            );
        }
        assert!(PublicKey::read(Path::new("/no/such")).is_err());
    }
}
