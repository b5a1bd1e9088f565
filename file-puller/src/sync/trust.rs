//! Whether a manifest is one that we may follow: signed for `--public-key`, and not older than what was accepted before.
//!
//! How far the content manager had come is remembered on the volume, as the time in the published release's signed manifest, so that a
//! restart forgets nothing. Where the same content is signed again, that manifest is replaced by the newer one.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use humantime::format_rfc3339_seconds;

use super::error::SyncError;
use crate::content::{Digest, Manifest, Site, timestamp};
use crate::source::{Freshness, PublicKey, SignatureError, Source, url};
use crate::store::{Volume, VolumeError};

/// What content must be, whichever server it comes from.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Authenticity")]
pub(crate) struct Authenticity {
    /// Require every manifest to be signed for this ed25519 public key (PEM); the signature is fetched from the manifest's URL plus .sig
    #[arg(long, value_name = "FILE")]
    pub(crate) public_key: Option<PathBuf>,

    /// Require the signed manifest to name this site, where one key signs for several
    #[arg(long, value_name = "NAME", requires = "public_key", value_parser = Site::parse)]
    site: Option<Site>,

    /// Reject signed manifests that were created before this time; for new volumes, which have accepted none yet
    #[arg(long, value_name = "TIME", requires = "public_key", value_parser = timestamp::parse)]
    not_before: Option<SystemTime>,

    /// Require the archive to have this digest, written sha256:<64 hexadecimal digits>
    #[arg(long, value_name = "DIGEST", value_parser = sha256_digest)]
    pub(crate) digest: Option<Digest>,
}

/// The key that every manifest must be signed with, and the newest manifest that was accepted.
#[derive(Debug)]
pub(super) struct TrustPolicy {
    public_key: PathBuf,
    site: Option<Site>,
    not_before: Option<SystemTime>,
    newest: Option<SystemTime>,
}

/// How far ahead of our clock a publisher's may be. One manifest that was signed under a clock that is wrong by years would
/// make all after it look like attempts to roll back.
const MAX_AHEAD: Duration = Duration::from_secs(24 * 3600);

impl TrustPolicy {
    /// `None` where no signature is required.
    pub(super) fn new(options: &Authenticity) -> Option<Self> {
        let Authenticity { public_key, site, not_before, .. } = options.clone();
        Some(Self { public_key: public_key?, site, not_before, newest: None })
    }

    /// Holds a manifest's bytes to the signature beside it, and returns the signature.
    pub(super) async fn verify_signature(
        &self,
        source: &Source,
        json: &[u8],
        freshness: Freshness,
    ) -> Result<Vec<u8>, SyncError> {
        // Read at each sync, like a token: keys are rotated, too.
        let key = PublicKey::read(&self.public_key)?;
        let (url, signature) = source.signature(freshness).await?;
        if key.verify(json, &signature) {
            return Ok(signature);
        }
        Err(SignatureError::Wrong { url: url::display(&url) }.into())
    }

    /// Refuses what was signed for another site, or at a time at which it cannot have been signed.
    pub(super) fn check_scope(&self, manifest: &Manifest) -> Result<(), SignatureError> {
        let refuse = |why: String| Err(SignatureError::Refused(why));
        if let Some(expected) = self.site.as_ref().filter(|site| manifest.site.as_ref() != Some(site)) {
            let found = manifest.site.as_ref().map(|found| format!("site {:?}", found.as_str()));
            let found = found.unwrap_or_else(|| "no site in particular".to_owned());
            return refuse(format!("it is signed for {found}, and --site {expected} accepts no other"));
        }
        let created = format_rfc3339_seconds(manifest.created);
        if manifest.created > SystemTime::now() + MAX_AHEAD {
            return refuse(format!(
                "it was created {created}, more than a day ahead of this machine's clock; one of the two clocks is wrong"
            ));
        }
        match self.not_before {
            Some(not_before) if manifest.created < not_before => {
                let limit = format_rfc3339_seconds(not_before);
                refuse(format!("it was created {created}, and --not-before {limit} accepts nothing older"))
            }
            _ => Ok(()),
        }
    }

    /// Refuses a manifest that is older than the newest that was accepted (rollback).
    pub(super) fn reject_rollback(&self, volume: &Volume, manifest: &Manifest) -> Result<(), SyncError> {
        // SECURITY: a release without a signature was published without --public-key, so its time is no promise of the publisher's: an
        // unsigned manifest of the far future would make all signed ones look old.
        let signed = || -> Result<_, VolumeError> {
            match volume.current()? {
                Some(id) if volume.has_signature(&id)? => {
                    Ok(volume.manifest(&id).map(|manifest| manifest.created))
                }
                _ => Ok(None),
            }
        };
        let accepted = self.newest.map_or_else(signed, |newest| Ok(Some(newest)))?;
        match accepted {
            Some(published) if manifest.created < published => {
                let [created, published] = [manifest.created, published].map(format_rfc3339_seconds);
                Err(SignatureError::Refused(format!(
                    "it was created {created}, before the one that is published ({published}), which may be an attempt to roll back"
                ))
                .into())
            }
            _ => Ok(()),
        }
    }

    /// Remembers how far the content manager has come. The volume remembers it as well.
    pub(super) fn accept(&mut self, manifest: &Manifest) {
        self.newest = Some(manifest.created);
    }
}

fn sha256_digest(text: &str) -> Result<Digest, String> {
    let digest = text.strip_prefix("sha256:").and_then(Digest::parse);
    digest.ok_or_else(|| "it is not sha256: and 64 lower-case hexadecimal digits".to_owned())
}
