//! The compressions that an archive may come in, as readers.

use std::io::{self, BufRead, BufReader, Read};

use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use crate::source::Compression;

/// The most memory that a Zstandard frame may ask for: what RFC 8878 (section 3.1.1.1.2) tells decoders to support, and what
/// all levels but `--ultra` and `--long` stay within.
const ZSTD_WINDOW: u64 = 8 * 1024 * 1024;

/// Takes the compression off. What follows the compressed data is an error, not silence.
pub(crate) fn inflate(input: impl Read + 'static, compression: Compression) -> Box<dyn Read> {
    match compression {
        Compression::None => Box::new(input),
        // Several members after one another are one stream (RFC 1952, section 2.2).
        Compression::Gzip => Box::new(flate2::read::MultiGzDecoder::new(input)),
        Compression::Zstd => Box::new(ZstdFrames::new(input)),
    }
}

/// Zstandard frames after one another are one stream, too, and those that are to be skipped are no part of it (RFC 8878, section 3).
struct ZstdFrames<R> {
    input: BufReader<R>,
    decoder: FrameDecoder,
}

impl<R: Read> ZstdFrames<R> {
    fn new(input: R) -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(ZSTD_WINDOW);
        Self { input: BufReader::new(input), decoder }
    }

    /// Begins the next frame that has content, and returns whether there is one.
    fn begin_frame(&mut self) -> io::Result<bool> {
        while !self.input.fill_buf()?.is_empty() {
            match self.decoder.init(&mut self.input) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => self.skip(length.into())?,
                Err(FrameDecoderError::WindowSizeTooBig { requested, max }) => {
                    return Err(io::Error::other(format!(
                        "it needs {} of memory to unpack, and {} is the limit; compress it with zstd -19 or a lower level, without --ultra and --long",
                        bytesize::ByteSize(requested),
                        bytesize::ByteSize(max),
                    )));
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        Ok(false)
    }

    /// Skips what other programs keep in the stream, such as the table of a seekable one.
    fn skip(&mut self, length: u64) -> io::Result<()> {
        let skipped = io::copy(&mut self.input.by_ref().take(length), &mut io::sink())?;
        if skipped == length { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

impl<R: Read> Read for ZstdFrames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                let blocks = BlockDecodingStrategy::UptoBlocks(1);
                self.decoder.decode_blocks(&mut self.input, blocks).map_err(io::Error::other)?;
            }
            let read = self.decoder.read(buffer)?;
            if read > 0 || buffer.is_empty() || !self.begin_frame()? {
                return Ok(read);
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
        inflate(io::Cursor::new(input), compression).read_to_end(&mut output)?;
        Ok(output)
    }

    #[test]
    fn frames_after_one_another_are_one_stream() {
        let one = compress_to_vec(&b"one "[..], CompressionLevel::Fastest);
        let two = compress_to_vec(&b"two"[..], CompressionLevel::Fastest);
        assert_eq!(inflated([one, two].concat(), Compression::Zstd).unwrap(), b"one two");
    }

    /// Frames to be skipped as pzstd writes them first, podman's zstd:chunked between others, and the seekable format last.
    #[test]
    fn frames_that_are_to_be_skipped_are_no_content() {
        let skipped = |magic: u8, content: &[u8]| {
            let length = u32::try_from(content.len()).unwrap().to_le_bytes();
            [&[magic, 0x2a, 0x4d, 0x18][..], &length, content].concat()
        };
        let frame = |content: &[u8]| compress_to_vec(content, CompressionLevel::Fastest);
        let stream = [
            skipped(0x50, &[7; 4]),
            skipped(0x5f, b""),
            frame(b"one "),
            skipped(0x51, &vec![0; 100_000]),
            frame(b""),
            frame(b"two"),
            skipped(0x5e, b"table"),
        ];
        let stream = stream.concat();
        assert_eq!(inflated(stream.clone(), Compression::Zstd).unwrap(), b"one two");
        assert!(inflated(stream[..stream.len() - 1].to_vec(), Compression::Zstd).is_err(), "cut off");
    }

    #[test]
    fn what_follows_is_an_error() {
        let mut frame = compress_to_vec(&b"one"[..], CompressionLevel::Fastest);
        frame.extend(b"garbage");
        assert!(inflated(frame, Compression::Zstd).is_err());
    }
}
