//! Unsigned integers that decimals are gathered in, up to 256 bits. Pure.

/// An integer that grows digit by digit. Overflow is an answer, not a wrap.
pub(super) trait Accumulator: Copy {
    /// Nothing gathered yet.
    const ZERO: Self;

    /// `self * factor + addend`, or `None` if that does not fit.
    fn mul_add(self, factor: u64, addend: u64) -> Option<Self>;

    /// Whether it has at most this many decimal digits.
    fn has_digits(self, digits: u8) -> bool;

    /// Appends it as a two's complement number of `width` bytes, little end first.
    fn write(self, negative: bool, width: usize, out: &mut Vec<u8>);
}

impl Accumulator for u64 {
    const ZERO: Self = 0;

    #[inline]
    fn mul_add(self, factor: u64, addend: u64) -> Option<Self> {
        self.checked_mul(factor)?.checked_add(addend)
    }

    #[inline]
    fn has_digits(self, digits: u8) -> bool {
        10u64.checked_pow(u32::from(digits)).is_none_or(|limit| self < limit)
    }

    #[inline]
    fn write(self, negative: bool, width: usize, out: &mut Vec<u8>) {
        let value = if negative { self.wrapping_neg() } else { self };
        match width {
            4 => out.extend_from_slice(&(value as u32).to_le_bytes()),
            _ => out.extend_from_slice(&value.to_le_bytes()),
        }
    }
}

impl Accumulator for u128 {
    const ZERO: Self = 0;

    #[inline]
    fn mul_add(self, factor: u64, addend: u64) -> Option<Self> {
        self.checked_mul(u128::from(factor))?.checked_add(u128::from(addend))
    }

    #[inline]
    fn has_digits(self, digits: u8) -> bool {
        10u128.checked_pow(u32::from(digits)).is_none_or(|limit| self < limit)
    }

    #[inline]
    fn write(self, negative: bool, _width: usize, out: &mut Vec<u8>) {
        let value = if negative { self.wrapping_neg() } else { self };
        out.extend_from_slice(&value.to_le_bytes());
    }
}

/// 256 bits, the least significant limb first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct U256([u64; 4]);

impl U256 {
    /// Ten to the power of `digits`, or `None` above 256 bits.
    fn power_of_ten(digits: u8) -> Option<Self> {
        (0..digits).try_fold(Self([1, 0, 0, 0]), |power, _| power.mul_add(10, 0))
    }

    /// Whether, with this sign, it is an integer of so many bits, sign included.
    pub(super) fn fits(self, negative: bool, bits: u16, signed: bool) -> bool {
        let used = self.bit_length();
        match (signed, negative) {
            (false, false) => used <= bits,
            (false, true) => used == 0,
            (true, false) => used < bits,
            (true, true) => used < bits || used == bits && self.ones() == 1,
        }
    }

    fn bit_length(self) -> u16 {
        let limb = |at: usize| 64 * at as u16 + 64 - self.0[at].leading_zeros() as u16;
        (0..self.0.len()).rev().find(|at| self.0[*at] != 0).map_or(0, limb)
    }

    fn ones(self) -> u32 {
        self.0.iter().map(|limb| limb.count_ones()).sum()
    }
}

impl Accumulator for U256 {
    const ZERO: Self = Self([0; 4]);

    fn mul_add(self, factor: u64, addend: u64) -> Option<Self> {
        let mut carry = u128::from(addend);
        let mut limbs = self.0;
        for limb in &mut limbs {
            carry += u128::from(*limb) * u128::from(factor);
            *limb = carry as u64;
            carry >>= 64;
        }
        (carry == 0).then_some(Self(limbs))
    }

    fn has_digits(self, digits: u8) -> bool {
        Self::power_of_ten(digits).is_none_or(|limit| self.0.iter().rev().lt(limit.0.iter().rev()))
    }

    fn write(self, negative: bool, _width: usize, out: &mut Vec<u8>) {
        let mut carry = negative;
        for limb in self.0 {
            let (limb, overflow) =
                if negative { (!limb).overflowing_add(u64::from(carry)) } else { (limb, false) };
            carry = overflow;
            out.extend_from_slice(&limb.to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_numbers_agree_with_narrow_ones() {
        let (mut narrow, mut wide) = (0u128, U256::ZERO);
        for digit in 1..=37 {
            narrow = narrow.mul_add(10, digit % 10).unwrap();
            wide = wide.mul_add(10, digit % 10).unwrap();
            for digits in 30..=40 {
                assert_eq!(narrow.has_digits(digits), wide.has_digits(digits));
            }
            for negative in [false, true] {
                let (mut a, mut b) = (Vec::new(), Vec::new());
                narrow.write(negative, 16, &mut a);
                wide.write(negative, 32, &mut b);
                assert_eq!(a, b[..16]);
                assert!(b[16..].iter().all(|&byte| byte == if negative { 0xff } else { 0 }));
            }
        }
    }

    #[test]
    fn overflow_is_an_answer() {
        assert_eq!(u64::MAX.mul_add(1, 1), None);
        assert_eq!(U256([u64::MAX; 4]).mul_add(1, 1), None);
        assert_eq!(U256([u64::MAX; 4]).mul_add(1, 0), Some(U256([u64::MAX; 4])));
        assert!(U256::power_of_ten(76).is_some_and(|power| !power.has_digits(76) && power.has_digits(77)));
    }

    #[test]
    fn what_fits_is_what_rust_says() {
        for value in
            [0i128, 1, 127, 128, 129, 255, 256, 32_767, 32_768, i64::MAX.into(), 1 << 63, u64::MAX.into()]
        {
            for value in [value, -value] {
                let magnitude = value.unsigned_abs();
                let wide = U256([magnitude as u64, (magnitude >> 64) as u64, 0, 0]);
                let fits = |bits, signed| wide.fits(value < 0, bits, signed);
                assert_eq!(fits(8, true), i8::try_from(value).is_ok(), "{value}");
                assert_eq!(fits(8, false), u8::try_from(value).is_ok(), "{value}");
                assert_eq!(fits(16, true), i16::try_from(value).is_ok(), "{value}");
                assert_eq!(fits(64, true), i64::try_from(value).is_ok(), "{value}");
                assert_eq!(fits(64, false), u64::try_from(value).is_ok(), "{value}");
                assert!(fits(128, true) && fits(256, true));
            }
        }
        let top = U256([0, 0, 0, 1 << 63]);
        assert!(top.fits(true, 256, true) && top.fits(false, 256, false) && !top.fits(false, 256, true));
        assert!(!U256([1, 0, 0, 1 << 63]).fits(true, 256, true));
    }

    #[test]
    fn zero_has_no_sign() {
        let mut out = Vec::new();
        U256::ZERO.write(true, 32, &mut out);
        assert_eq!(out, [0; 32]);
    }
}
