//! From the content manager to the volume: files several at a time, or an archive that is unpacked while it arrives.

mod archive;
#[cfg(feature = "fleet")]
mod check;
mod contents;
mod decompress;
mod download;
mod feed;
mod pool;
mod sink;

pub(crate) use self::archive::{ArchiveError, Expansion, Rules, Tars, Unpacking, Whiteouts, unpack};
#[cfg(feature = "fleet")]
pub(crate) use self::check::check_all;
pub(crate) use self::contents::{Arrived, Contents, PlaceError};
pub(crate) use self::download::{DownloadError, Downloader};
pub(crate) use self::feed::{Allowance, receive};
pub(crate) use self::pool::download_all;
