//! What a file is compared by: the [`Digest`] of its content, and its [`FileMode`].

use std::fmt;
use std::io::{self, Read};

use rustix::fs::{Mode, RawMode};
use sha2::{Digest as _, Sha256};

/// The SHA-256 of a file's content.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Digest([u8; 32]);

impl Digest {
    /// What a hasher has seen.
    pub(crate) fn of(hasher: Sha256) -> Self {
        Self(hasher.finalize().into())
    }

    /// The digest of all that can be read; each piece of it is given to `piece` as well, which can end it with an error.
    pub(crate) fn of_reader(
        mut input: impl Read,
        mut piece: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<Self> {
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match input.read(&mut buffer) {
                Ok(0) => return Ok(Self::of(hasher)),
                Ok(read) => {
                    hasher.update(&buffer[..read]);
                    piece(&buffer[..read])?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Its bytes as they were kept.
    pub(crate) fn of_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(crate) fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Reads 64 lower-case hexadecimal digits. Upper case is refused: one digest has one spelling, because the spelling is
    /// part of a release's identity.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        parse_hexadecimal(text, &mut bytes)?;
        Some(Self(bytes))
    }

    /// Its 64 digits.
    pub(crate) fn hexadecimal(&self) -> [u8; 64] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut digits = [0; 64];
        for (pair, byte) in digits.chunks_exact_mut(2).zip(self.0) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        digits
    }
}

/// Reads exactly as many lower-case hexadecimal digits as the bytes have.
pub(crate) fn parse_hexadecimal(text: &str, bytes: &mut [u8]) -> Option<()> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    if text.len() != 2 * bytes.len() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(())
}

impl fmt::Display for Digest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(std::str::from_utf8(&self.hexadecimal()).unwrap_or_default())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// A file's permission bits: read, write and execute for owner, group and others, and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct FileMode(u16);

impl FileMode {
    /// The mode of a plain file.
    pub(crate) const PLAIN: Self = Self(0o644);
    /// The mode of a plain file that its group may write.
    pub(crate) const GROUP_WRITABLE: Self = Self(0o664);
    /// The mode of a file that readers are not to open.
    pub(crate) const CLOSED: Self = Self(0o600);
    /// The mode of such a file that its group may read and write.
    pub(crate) const CLOSED_GROUP_WRITABLE: Self = Self(0o660);
    /// What a program has.
    pub(crate) const EXECUTABLE: Self = Self(0o755);

    /// Reads four octal digits such as `0644`.
    ///
    /// `None` for anything else: set-user-id and its like have no place in content, and a file that its own owner
    /// cannot read could be neither served nor verified.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let digits = text.len() == 4 && text.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
        let bits = u16::from_str_radix(text, 8).ok().filter(|_| digits)?;
        (bits <= 0o777 && bits & 0o400 != 0).then_some(Self(bits))
    }

    /// The bits as `chmod` takes them.
    pub(crate) fn bits(self) -> u32 {
        self.0.into()
    }

    /// The mode for system calls.
    pub(crate) fn as_mode(self) -> Mode {
        Mode::from_raw_mode(self.bits())
    }

    /// Whether a file that was given this mode still has it. A kubelet adds to every file of a volume with an `fsGroup` what the
    /// group needs, 0660 or, on a volume that is mounted read-only, 0440, each time that it mounts the volume.
    pub(crate) fn is_intact(self, found: RawMode) -> bool {
        let found = found & 0o7777;
        [0, 0o440, 0o660].iter().any(|added| found == self.bits() | added)
    }
}

impl fmt::Display for FileMode {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:04o}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_that_was_interrupted_is_tried_again() {
        struct Interrupted(bool, &'static [u8]);
        impl Read for Interrupted {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                self.0 = !self.0;
                if self.0 { Err(io::ErrorKind::Interrupted.into()) } else { self.1.read(buffer) }
            }
        }
        let digest = Digest::of_reader(Interrupted(false, b"content"), |_| Ok(())).unwrap();
        assert_eq!(digest, Digest::of_reader(&b"content"[..], |_| Ok(())).unwrap());
    }

    fn digest(content: &str) -> Digest {
        Digest::of(Sha256::new_with_prefix(content))
    }

    #[test]
    fn a_digest_has_one_spelling() {
        let text = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
        assert_eq!(digest("test").to_string(), text);
        assert_eq!(Digest::parse(text), Some(digest("test")));
        assert_eq!(Digest::parse(&text.to_uppercase()), None);
        assert_eq!(Digest::parse(&text[..63]), None);
        assert_eq!(Digest::parse(&format!("{text}0")), None);
    }

    #[test]
    fn what_a_kubelet_adds_for_an_fs_group_is_intact() {
        for (mode, found, intact) in [
            ("0644", 0o100_644, true),
            ("0644", 0o100_664, true),
            ("0755", 0o100_775, true),
            ("0600", 0o100_660, true),
            ("0400", 0o100_660, true),
            ("0600", 0o100_640, true),
            ("0644", 0o100_666, false),
            ("0644", 0o100_755, false),
            ("0755", 0o100_644, false),
            ("0644", 0o104_664, false),
        ] {
            assert_eq!(FileMode::parse(mode).unwrap().is_intact(found), intact, "{mode} {found:o}");
        }
    }

    #[test]
    fn modes_are_permissions_only() {
        assert_eq!(FileMode::parse("0644").map(FileMode::bits), Some(0o644));
        assert_eq!(FileMode::parse("0755").unwrap().to_string(), "0755");
        for refused in ["644", "4755", "0888", "0200", "+644", "", "00644"] {
            assert_eq!(FileMode::parse(refused), None, "{refused}");
        }
    }
}
