//! The compressions that an archive may come in, as readers.

use std::io::{self, BufRead, BufReader, Read};

use ruzstd::decoding::errors::FrameDecoderError;
use ruzstd::decoding::{FrameDecoder, StreamingDecoder};

use crate::source::Compression;

/// The most memory that a Zstandard frame may ask for: what RFC 8878 (section 3.1.1.1.2) tells decoders to support, and what
/// all levels but `--ultra` and `--long` stay within.
const ZSTD_WINDOW: u64 = 8 * 1024 * 1024;

/// Takes the compression off. What follows the compressed data is an error, not silence.
pub(crate) fn inflate(input: impl Read + 'static, compression: Compression) -> io::Result<Box<dyn Read>> {
    Ok(match compression {
        Compression::None => Box::new(input),
        // Several members after one another are one stream (RFC 1952, section 2.2).
        Compression::Gzip => Box::new(flate2::read::MultiGzDecoder::new(input)),
        Compression::Zstd => Box::new(ZstdFrames::Frame(frame(BufReader::new(input))?)),
    })
}

/// Zstandard frames after one another are one stream, too (RFC 8878, section 3).
enum ZstdFrames<R: Read> {
    Frame(Box<StreamingDecoder<BufReader<R>, FrameDecoder>>),
    End,
}

fn frame<R: Read>(input: BufReader<R>) -> io::Result<Box<StreamingDecoder<BufReader<R>, FrameDecoder>>> {
    match StreamingDecoder::new_with_max_window_size(input, ZSTD_WINDOW) {
        Ok(decoder) => Ok(Box::new(decoder)),
        Err(FrameDecoderError::WindowSizeTooBig { requested, max }) => Err(io::Error::other(format!(
            "it needs {} of memory to unpack, and {} is the limit; compress it with zstd -19 or a lower level, without --ultra and --long",
            bytesize::ByteSize(requested),
            bytesize::ByteSize(max),
        ))),
        Err(error) => Err(io::Error::other(error)),
    }
}

impl<R: Read> Read for ZstdFrames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let Self::Frame(current) = self else { return Ok(0) };
            let read = current.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            let Self::Frame(ended) = std::mem::replace(self, Self::End) else { return Ok(0) };
            let mut rest = ended.into_inner();
            if !rest.fill_buf()?.is_empty() {
                *self = Self::Frame(frame(rest)?);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    fn inflated(input: Vec<u8>, compression: Compression) -> io::Result<Vec<u8>> {
        let mut output = Vec::new();
        inflate(io::Cursor::new(input), compression)?.read_to_end(&mut output)?;
        Ok(output)
    }

    #[test]
    fn frames_after_one_another_are_one_stream() {
        let one = compress_to_vec(&b"one "[..], CompressionLevel::Fastest);
        let two = compress_to_vec(&b"two"[..], CompressionLevel::Fastest);
        assert_eq!(inflated([one, two].concat(), Compression::Zstd).unwrap(), b"one two");
    }

    #[test]
    fn what_follows_is_an_error() {
        let mut frame = compress_to_vec(&b"one"[..], CompressionLevel::Fastest);
        frame.extend(b"garbage");
        assert!(inflated(frame, Compression::Zstd).is_err());
    }
}
