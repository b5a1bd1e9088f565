//! Git's framing (`gitprotocol-common(5)`): four hexadecimal digits of length, then the payload; and the side band, in which
//! a pack arrives within such frames.

use std::io::{self, Read};

/// The largest payload of one line.
const MAX_PAYLOAD: usize = 65516;

/// One frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PktLine {
    /// A payload, without the line feed that a line of text may end with.
    Data(Vec<u8>),
    /// The end of a message.
    Flush,
    /// The end of a section, of which more follow.
    Delimiter,
    /// The end of a stateless response.
    ResponseEnd,
}

impl PktLine {
    /// Reads the next frame, or `None` where the input ends before it.
    pub(super) fn read(input: &mut impl Read) -> io::Result<Option<Self>> {
        let mut length = [0; 4];
        if input.read(&mut length[..1])? == 0 {
            return Ok(None);
        }
        input.read_exact(&mut length[1..])?;
        Ok(Some(match parse_length(&length) {
            Some(0) => Self::Flush,
            Some(1) => Self::Delimiter,
            Some(2) => Self::ResponseEnd,
            Some(length @ 4..) if length - 4 <= MAX_PAYLOAD => {
                let mut payload = vec![0; length - 4];
                input.read_exact(&mut payload)?;
                Self::Data(payload)
            }
            _ => return Err(malformed("it is not in pkt-lines")),
        }))
    }

    /// The payload as a line of text; an `ERR` line is the server's refusal.
    pub(super) fn text(self) -> io::Result<Option<String>> {
        let Self::Data(payload) = self else { return Ok(None) };
        let text = String::from_utf8_lossy(&payload);
        let text = text.strip_suffix('\n').unwrap_or(&text);
        match text.strip_prefix("ERR ") {
            Some(why) => Err(refused(why)),
            None => Ok(Some(text.to_owned())),
        }
    }
}

/// The length of a frame, itself included; less than four are no lengths but marks.
fn parse_length(digits: &[u8]) -> Option<usize> {
    usize::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// Appends a line.
pub(super) fn write(to: &mut String, line: &str) {
    use std::fmt::Write as _;
    writeln!(to, "{:04x}{line}", line.len() + 5).expect("a String takes everything");
}

/// The end of a message.
pub(super) const FLUSH: &str = "0000";
/// The end of a section.
pub(super) const DELIMITER: &str = "0001";

/// The server said why not.
#[derive(Debug, thiserror::Error)]
#[error("the git server refuses: {0}")]
pub(super) struct ServerRefusal(String);

fn refused(why: &str) -> io::Error {
    io::Error::other(ServerRefusal(lifecycle::escape::escaped(why.trim_end()).to_string()))
}

pub(super) fn malformed(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.into())
}

/// The pack within the side band (`gitprotocol-pack(5)`): band 1 is data, 2 progress for people, 3 a fatal error.
pub(super) struct SideBand<R> {
    input: R,
    /// The unread part of a payload.
    left: usize,
    ended: bool,
}

impl<R: Read> SideBand<R> {
    /// Reads on where the pack begins.
    pub(super) fn new(input: R) -> Self {
        Self { input, left: 0, ended: false }
    }

    /// Finds the next payload of data.
    fn advance(&mut self) -> io::Result<()> {
        let mut header = [0; 5];
        self.input.read_exact(&mut header[..4])?;
        let length = match parse_length(&header[..4]) {
            Some(0) => {
                self.ended = true;
                return Ok(());
            }
            Some(length @ 5..) if length - 4 <= MAX_PAYLOAD => length - 5,
            _ => return Err(malformed("its pack is not in a side band")),
        };
        self.input.read_exact(&mut header[4..])?;
        match header[4] {
            1 => self.left = length,
            band @ (2 | 3) => {
                let mut text = vec![0; length];
                self.input.read_exact(&mut text)?;
                if band == 3 {
                    return Err(refused(&String::from_utf8_lossy(&text)));
                }
            }
            _ => return Err(malformed("its pack has an unknown side band")),
        }
        Ok(())
    }
}

impl<R: Read> Read for SideBand<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.left == 0 && !self.ended {
            self.advance()?;
        }
        let wanted = buffer.len().min(self.left);
        let read = self.input.read(&mut buffer[..wanted])?;
        if read == 0 && wanted > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= read;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let mut request = String::new();
        write(&mut request, "command=fetch");
        assert_eq!(request, "0012command=fetch\n");
        request.push_str("000100000009done\n");
        let mut input = request.as_bytes();
        let mut next = || PktLine::read(&mut input).unwrap();
        assert_eq!(next(), Some(PktLine::Data(b"command=fetch\n".to_vec())));
        assert_eq!(next(), Some(PktLine::Delimiter));
        assert_eq!(next(), Some(PktLine::Flush));
        assert_eq!(next().unwrap().text().unwrap().as_deref(), Some("done"));
        assert_eq!(next(), None);
        let error = PktLine::Data(b"ERR no such ref\n".to_vec()).text().unwrap_err();
        assert_eq!(error.to_string(), "the git server refuses: no such ref");
        for bad in ["0003", "zzzz", "00", "0009do", "fff0"] {
            assert!(PktLine::read(&mut bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_side_band_gives_the_data_alone() {
        let read = |frames: &[u8]| {
            let mut data = String::new();
            SideBand::new(frames).read_to_string(&mut data).map(|_| data).map_err(|error| error.to_string())
        };
        assert_eq!(read(b"0008\x01PAC0003").unwrap_err(), "its pack is not in a side band");
        assert_eq!(read(b"0008\x01PAC000b\x02counti0006\x01K0000").unwrap(), "PACK");
        assert_eq!(read(b"0008\x01PAC000c\x03aborted0000").unwrap_err(), "the git server refuses: aborted");
        assert!(read(b"0008\x01PAC").is_err(), "it ends too early");
        assert!(read(b"0008\x01PA").is_err(), "it ends too early");
    }
}
