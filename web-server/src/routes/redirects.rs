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
        path.is_at(PATH)
    }

    /// The rules of this content. None where it has none.
    ///
    /// # Errors
    /// `NotFound` where the file is not where its release was.
    pub(super) async fn of(&self, content: &Arc<Content>) -> io::Result<Option<Arc<Redirects>>> {
        let Ok(path) = ContentPath::from_target(PATH) else { return Ok(None) };
        let Found::File(file) = content.find(&path).await? else { return Ok(None) };
        let latest = self.latest.lock().clone();
        if let Some((etag, rules)) = &latest
            && *etag == file.etag
        {
            return Ok(Some(Arc::clone(rules)));
        }
        let text = match read(&file.source).await {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(error),
            // The next request tries again: the same bytes may be readable then.
            Err(error) => {
                tracing::warn!(%error, "cannot read {PATH}; the rules that were read before hold");
                return Ok(latest.map(|(_, rules)| rules));
            }
        };
        let rules = parse(&text).unwrap_or_else(|reason| {
            tracing::warn!(reason, "{PATH} is not applied");
            Arc::default()
        });
        *self.latest.lock() = Some((file.etag.clone(), Arc::clone(&rules)));
        Ok(Some(rules))
    }
}

fn parse(text: &[u8]) -> Result<Arc<Redirects>, String> {
    if text.len() as u64 > MAX_SIZE {
        return Err(format!("it has more than {MAX_SIZE} bytes"));
    }
    let text = std::str::from_utf8(text).map_err(|error| error.to_string())?;
    let (rules, refused) = Redirects::parse(text);
    for Refused { line, reason } in refused {
        tracing::warn!(line, reason, "a line of {PATH} is not followed");
    }
    tracing::info!(rules = rules.len(), "following {PATH}");
    Ok(Arc::new(rules))
}

/// The file's bytes, or one more than are looked at where it has more.
async fn read(content: &Source) -> io::Result<Bytes> {
    let file = match content {
        Source::Memory(bytes) => return Ok(bytes.clone()),
        Source::Open { file, .. } => Arc::clone(file),
        Source::Large(file) => {
            let file = Arc::clone(file);
            blocking(move || file.open()).await?
        }
    };
    let size = content.size().min(MAX_SIZE + 1);
    blocking(move || {
        let mut bytes = vec![0; usize::try_from(size).map_err(io::Error::other)?];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes.into())
    })
    .await
}
