//! The rules of the content that is being served, read again when its `_redirects` file is another one.

use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::Bytes;
use lifecycle::blocking;
use parking_lot::Mutex;

use crate::content::generation::Found;
use crate::content::path::ContentPath;
use crate::content::redirects::{MAX_SIZE, PATH, Redirects, Refused};
use crate::content::representation::{ETag, Source};
use crate::content::root::Content;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct RedirectsFile {
    latest: Mutex<Option<(ETag, Arc<Redirects>)>>,
}

impl RedirectsFile {
    /// Whether a path is the file itself, which is no content where it is applied.
    pub(super) fn is_at(path: &ContentPath) -> bool {
        path.file() == PATH.trim_start_matches('/')
    }

    /// The rules of this content. None where it has none.
    pub(super) async fn of(&self, content: &Arc<Content>) -> Option<Arc<Redirects>> {
        let path = ContentPath::from_target(PATH).ok()?;
        let Ok(Found::File(file)) = content.find(&path).await else { return None };
        if let Some((etag, rules)) = &*self.latest.lock()
            && *etag == file.etag
        {
            return Some(Arc::clone(rules));
        }
        let rules = match read(file.source.clone()).await.and_then(|text| parse(&text)) {
            Ok(rules) => rules,
            Err(error) => {
                tracing::warn!(%error, "{PATH} is not applied");
                Arc::default()
            }
        };
        *self.latest.lock() = Some((file.etag.clone(), Arc::clone(&rules)));
        Some(rules)
    }
}

fn parse(text: &[u8]) -> io::Result<Arc<Redirects>> {
    let text = std::str::from_utf8(text).map_err(io::Error::other)?;
    let (rules, refused) = Redirects::parse(text);
    for Refused { line, reason } in refused {
        tracing::warn!(line, reason, "a line of {PATH} is not followed");
    }
    tracing::info!(rules = rules.len(), "following {PATH}");
    Ok(Arc::new(rules))
}

async fn read(content: Source) -> io::Result<Bytes> {
    let size = content.size();
    if size > MAX_SIZE {
        return Err(io::Error::other(format!("it has {size} bytes, more than {MAX_SIZE}")));
    }
    let file = match content {
        Source::Memory(bytes) => return Ok(bytes),
        Source::Open { file, .. } => file,
        Source::Large(file) => blocking(move || file.open()).await?,
    };
    blocking(move || {
        let mut bytes = vec![0; usize::try_from(size).map_err(io::Error::other)?];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes.into())
    })
    .await
}
