//! What is done to a payload before it goes over the network.
//!
//! Level 1 of either: on log lines the higher ones cost several times the time for a few per cent of the size.

use std::io::{self, Write as _};

use flate2::write::GzEncoder;

const LEVEL: u8 = 1;

/// How payloads are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Compression {
    /// Not at all
    None,
    /// gzip, which every receiver supports
    Gzip,
    /// zstd: smaller and twice as fast, for receivers that support it
    Zstd,
}

impl Compression {
    /// As it is written in `Content-Encoding`.
    pub(super) fn as_str(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Gzip => Some("gzip"),
            Self::Zstd => Some("zstd"),
        }
    }
}

/// Compresses one payload after the other.
pub(super) struct Compressor {
    kind: Kind,
    /// Memory for the next payload.
    spare: Vec<u8>,
}

enum Kind {
    None,
    Gzip,
    Zstd(zstd::bulk::Compressor<'static>),
}

impl Compressor {
    pub(super) fn new(compression: Compression) -> io::Result<Self> {
        let kind = match compression {
            Compression::None => Kind::None,
            Compression::Gzip => Kind::Gzip,
            Compression::Zstd => Kind::Zstd(zstd::bulk::Compressor::new(i32::from(LEVEL))?),
        };
        Ok(Self { kind, spare: Vec::new() })
    }

    /// Compresses `body` in place, and says how it is now.
    pub(super) fn compress(&mut self, body: &mut Vec<u8>) -> Compression {
        self.spare.clear();
        let done = match &mut self.kind {
            Kind::None => return Compression::None,
            Kind::Gzip => gzip(body, &mut self.spare).map(|()| Compression::Gzip),
            Kind::Zstd(compressor) => {
                // Never shorter than what it needs at the worst.
                self.spare.reserve(zstd::zstd_safe::compress_bound(body.len()));
                compressor.compress_to_buffer(body, &mut self.spare).map(|_| Compression::Zstd)
            }
        };
        match done {
            Ok(compression) => {
                std::mem::swap(body, &mut self.spare);
                compression
            }
            Err(error) => {
                tracing::warn!(%error, "cannot compress a chunk: sending it as it is");
                Compression::None
            }
        }
    }
}

fn gzip(body: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    let mut encoder = GzEncoder::new(std::mem::take(out), flate2::Compression::new(u32::from(LEVEL)));
    encoder.write_all(body)?;
    *out = encoder.finish()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn one_payload_after_the_other() {
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let mut compressor = Compressor::new(compression).unwrap();
            for length in [0, 1, 1000, 1_000_000, 10] {
                let plain = b"a line of a log\n".repeat(length / 16 + 1);
                let mut body = plain.clone();
                assert_eq!(compressor.compress(&mut body), compression);
                let mut back = Vec::new();
                match compression {
                    Compression::None => back.clone_from(&body),
                    Compression::Gzip => {
                        flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut back).map(drop).unwrap();
                    }
                    Compression::Zstd => back = zstd::decode_all(&body[..]).unwrap(),
                }
                assert_eq!(back, plain);
            }
        }
    }
}
