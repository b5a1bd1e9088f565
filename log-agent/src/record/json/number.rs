//! Numbers, as their readers' types: an integer that fits stays one, and nothing is rounded that need not be.

use super::Reader;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Number<'a> {
    Integer(i64),
    /// An integer that is no `i64`, or a fraction that no `f64` comes near: as it is written.
    Large(&'a [u8]),
    Float(f64),
}

/// Digits that a `u64` and an `i64` hold, whatever they are.
const SAFE_DIGITS: usize = 18;

/// The powers of ten that an `f64` holds exactly, as far as they are of use here.
const TENS: [f64; 19] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18];
/// An `f64` holds every integer up to this one exactly.
const LARGEST_EXACT: u64 = 1 << f64::MANTISSA_DIGITS;

impl<'a> Reader<'a> {
    /// A number; nothing where it is none.
    #[inline(always)]
    pub(super) fn number(&mut self) -> Option<Number<'a>> {
        let start = self.at;
        let negative = self.text.get(start) == Some(&b'-');
        self.at += usize::from(negative);
        let (leading, before) = (self.text.get(self.at).copied(), self.at);
        let sum = self.digits(0);
        let mut digits = self.at - before;
        if digits == 0 || (digits > 1 && leading == Some(b'0')) {
            return None;
        }
        if !matches!(self.text.get(self.at), Some(b'.' | b'e' | b'E')) {
            return Some(if digits <= SAFE_DIGITS {
                let value = sum.cast_signed();
                Number::Integer(if negative { -value } else { value })
            } else {
                large(self.text.get(start..self.at)?)
            });
        }
        let (mut sum, mut decimals) = (sum, 0);
        if self.text.get(self.at) == Some(&b'.') {
            self.at += 1;
            let before = self.at;
            sum = self.digits(sum);
            decimals = self.at - before;
            digits += decimals;
            if decimals == 0 {
                return None;
            }
        }
        if let Some(b'e' | b'E') = self.text.get(self.at) {
            self.at += 1;
            self.at += usize::from(matches!(self.text.get(self.at), Some(b'+' | b'-')));
            let before = self.at;
            self.digits(0);
            if self.at == before {
                return None;
            }
        } else if digits <= SAFE_DIGITS && sum <= LARGEST_EXACT {
            // The digits as an integer over a power of ten, both exact, so that the one division is what rounds (Clinger 1990).
            #[expect(clippy::cast_precision_loss, reason = "an f64 holds it exactly")]
            let value = sum as f64 / TENS.get(decimals)?;
            return Some(Number::Float(if negative { -value } else { value }));
        }
        let written = self.text.get(start..self.at)?;
        let value: f64 = std::str::from_utf8(written).ok()?.parse().ok()?;
        // No JSON number is infinite: what is beyond an f64 stays as it is written.
        Some(if value.is_finite() { Number::Float(value) } else { Number::Large(written) })
    }

    /// Passes digits, and appends them to a sum, which is of use for few of them only.
    #[inline(always)]
    fn digits(&mut self, mut sum: u64) -> u64 {
        while let Some(digit @ b'0'..=b'9') = self.text.get(self.at) {
            sum = sum.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
            self.at += 1;
        }
        sum
    }
}

#[cold]
fn large(digits: &[u8]) -> Number<'_> {
    let value = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
    value.map_or(Number::Large(digits), Number::Integer)
}
