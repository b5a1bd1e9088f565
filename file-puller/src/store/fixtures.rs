//! For tests of publishing: a small release, and how it comes into a staged tree.

use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::staged_file::StagedFile;
use super::staging::Staging;
use crate::content::{Digest, Limits, Manifest, ManifestFile};

const LIMITS: Limits =
    Limits { manifest: 1 << 20, files: 9, directories: 9, file_size: 99, size: 999, min_free: 0 };

/// Files whose content is their path and a version.
pub(super) fn manifest(files: &[(&str, &str)]) -> Manifest {
    let files: Vec<_> = files
        .iter()
        .map(|(path, version)| {
            let digest = Digest::of(Sha256::new_with_prefix(format!("{path}{version}")));
            let size = path.len() + version.len();
            format!(r#"{{"path":"{path}","size":{size},"sha256":"{digest}","mode":"0644"}}"#)
        })
        .collect();
    let json = format!(
        r#"{{"format":"sidecar-manifest/1","created":"2026-11-23T18:00:00Z","files":[{}]}}"#,
        files.join(",")
    );
    Manifest::parse(json.as_bytes(), &LIMITS).unwrap()
}

/// Writes files into the staged tree, with the content that [`manifest`] gave them.
pub(super) fn write(staging: &Arc<Staging>, files: &[&ManifestFile], versions: &[&str]) {
    for (file, version) in files.iter().zip(versions) {
        let mut staged = StagedFile::create(staging, file).unwrap();
        staged.append(&[Bytes::from(format!("{}{version}", file.path))]).unwrap();
        staged.finish_verified(file).unwrap().unwrap();
    }
}
