//! SHA-256 digests: the identity of a file's bytes, from which its entity tag is made.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read as _};

use lifecycle::Ignore as _;
use sha2::{Digest as _, Sha256};

/// The SHA-256 of some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Digest([u8; 32]);

impl Digest {
    /// Hashes bytes in memory.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Hashes an open file from where it stands to its end, without holding it in memory. Blocks.
    pub(crate) fn of_file(file: &File) -> io::Result<Self> {
        Self::of_file_while(file, || true)
    }

    /// The same, for as long as the digest is wanted, which is asked before each 128 KiB.
    ///
    /// # Errors
    /// As the system gives them; `Interrupted` where it is wanted no more.
    pub(crate) fn of_file_while(mut file: &File, is_wanted: impl Fn() -> bool) -> io::Result<Self> {
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 128 * 1024];
        loop {
            if !is_wanted() {
                return Err(io::ErrorKind::Interrupted.into());
            }
            match file.read(&mut buffer) {
                Ok(0) => return Ok(Self(hasher.finalize().into())),
                Ok(read) => hasher.update(&buffer[..read]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The digest that these bytes are.
    pub(crate) const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub(crate) fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Reads 64 hexadecimal digits, as a release's manifest has them.
    pub(crate) fn from_hex(hex: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        if hex.len() != 64 || !hex.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        for (byte, at) in bytes.iter_mut().zip((0..).step_by(2)) {
            *byte = u8::from_str_radix(hex.get(at..at + 2)?, 16).ok()?;
        }
        Some(Self(bytes))
    }

    /// 64 lower-case hexadecimal digits.
    pub(crate) fn to_hex(self) -> String {
        self.0.iter().fold(String::with_capacity(64), |mut hex, byte| {
            // Writing to a String cannot fail.
            write!(hex, "{byte:02x}").ignore();
            hex
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn hexadecimal_there_and_back() {
        assert_eq!(Digest::of(b"").to_hex(), EMPTY);
        assert_eq!(Digest::from_hex(EMPTY), Some(Digest::of(b"")));
        assert_eq!(Digest::from_hex("e3b0"), None);
        assert_eq!(Digest::from_hex(&"+1".repeat(32)), None);
    }
}
