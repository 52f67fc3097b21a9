//! `date` and `timestamp[tz]` in both forms. Pure.
//!
//! Binary: days, or microseconds, since 2000-01-01; the extreme integers are the infinities. Text: the
//! ISO style, which every source session pins, with `BC` behind years before 1.

use super::Fault;

/// Days from 1970-01-01, where ClickHouse counts from, to 2000-01-01, where PostgreSQL does.
const EPOCH_DAYS: i32 = 10_957;
const DAY_MICROS: i64 = 86_400_000_000;
/// The last year of `date` (PostgreSQL documentation, section 8.5); its days fit an `i32`.
const YEAR_MAX: i32 = 5_874_897;

/// The days that the destination's `Date32` and `DateTime64(6)` hold, counted from 1970-01-01, both
/// ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeRange {
    first_day: i32,
    last_day: i32,
}

impl TimeRange {
    /// 1900-01-01 to 2299-12-31: what every supported ClickHouse holds.
    pub const NARROW: TimeRange =
        TimeRange { first_day: days_from_civil(1900, 1, 1), last_day: days_from_civil(2299, 12, 31) };

    /// 0001-01-01 to 9999-12-31: what newer ones hold.
    pub const WIDE: TimeRange =
        TimeRange { first_day: days_from_civil(1, 1, 1), last_day: days_from_civil(9999, 12, 31) };

    #[inline]
    fn push_day(self, day: i32, out: &mut Vec<u8>) -> Result<(), Fault> {
        if day < self.first_day || day > self.last_day {
            return Err(Fault::Unrepresentable);
        }
        out.extend_from_slice(&day.to_le_bytes());
        Ok(())
    }

    #[inline]
    fn push_micros(self, micros: i64, out: &mut Vec<u8>) -> Result<(), Fault> {
        let first = self.first_day as i64 * DAY_MICROS;
        let end = (self.last_day as i64 + 1) * DAY_MICROS;
        if micros < first || micros >= end {
            return Err(Fault::Unrepresentable);
        }
        out.extend_from_slice(&micros.to_le_bytes());
        Ok(())
    }
}

/// Days from 1970-01-01 to a day of the proleptic Gregorian calendar; year 0 is 1 BC.
const fn days_from_civil(year: i32, month: i32, day: i32) -> i32 {
    // Years are counted from March, so that the leap day is a year's last.
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[inline]
pub(super) fn push_date_binary(bytes: &[u8], range: TimeRange, out: &mut Vec<u8>) -> Result<(), Fault> {
    let days = i32::from_be_bytes(bytes.try_into().map_err(|_| Fault::Malformed)?);
    // The infinities overflow or are far out of range.
    range.push_day(days.checked_add(EPOCH_DAYS).ok_or(Fault::Unrepresentable)?, out)
}

#[inline]
pub(super) fn push_timestamp_binary(bytes: &[u8], range: TimeRange, out: &mut Vec<u8>) -> Result<(), Fault> {
    let micros = i64::from_be_bytes(bytes.try_into().map_err(|_| Fault::Malformed)?);
    let micros = micros.checked_add(EPOCH_DAYS as i64 * DAY_MICROS).ok_or(Fault::Unrepresentable)?;
    range.push_micros(micros, out)
}

pub(super) fn push_date_text(text: &[u8], range: TimeRange, out: &mut Vec<u8>) -> Result<(), Fault> {
    if is_infinity(text) {
        return Err(Fault::Unrepresentable);
    }
    let (text, before_christ) = take_era(text);
    let (day, rest) = parse_day(text, before_christ)?;
    if !rest.is_empty() {
        return Err(Fault::Malformed);
    }
    range.push_day(day, out)
}

pub(super) fn push_timestamp_text(text: &[u8], range: TimeRange, out: &mut Vec<u8>) -> Result<(), Fault> {
    if is_infinity(text) {
        return Err(Fault::Unrepresentable);
    }
    let (text, before_christ) = take_era(text);
    let (day, rest) = parse_day(text, before_christ)?;
    let [b' ', time @ ..] = rest else { return Err(Fault::Malformed) };
    let (time, rest) = parse_time(time)?;
    let offset = parse_offset(rest)?;
    // Days this far out would overflow; an offset moves a value by one at most.
    if day < range.first_day - 2 || day > range.last_day + 2 {
        return Err(Fault::Unrepresentable);
    }
    range.push_micros(i64::from(day) * DAY_MICROS + time - offset, out)
}

fn is_infinity(text: &[u8]) -> bool {
    matches!(text, b"infinity" | b"-infinity")
}

fn take_era(text: &[u8]) -> (&[u8], bool) {
    match text.strip_suffix(b" BC") {
        Some(text) => (text, true),
        None => (text, false),
    }
}

/// Takes `YYYY-MM-DD` off the front; years have four digits or more.
fn parse_day(text: &[u8], before_christ: bool) -> Result<(i32, &[u8]), Fault> {
    let dash = text.iter().position(|&byte| byte == b'-').ok_or(Fault::Malformed)?;
    let year = match dash {
        4..=7 => digits(&text[..dash])?,
        _ => return Err(Fault::Malformed),
    };
    if year > YEAR_MAX {
        return Err(Fault::Malformed);
    }
    let [b'-', m0, m1, b'-', d0, d1, rest @ ..] = &text[dash..] else { return Err(Fault::Malformed) };
    let (month, day) = (digits(&[*m0, *m1])?, digits(&[*d0, *d1])?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return Err(Fault::Malformed);
    }
    let year = if before_christ { 1 - year } else { year };
    Ok((days_from_civil(year, month, day), rest))
}

/// Takes `HH:MM:SS[.ffffff]` off the front, in microseconds.
fn parse_time(text: &[u8]) -> Result<(i64, &[u8]), Fault> {
    let [h0, h1, b':', m0, m1, b':', s0, s1, rest @ ..] = text else { return Err(Fault::Malformed) };
    let seconds = digits(&[*h0, *h1])? * 3600 + digits(&[*m0, *m1])? * 60 + digits(&[*s0, *s1])?;
    let mut micros = i64::from(seconds) * 1_000_000;
    let [b'.', fraction @ ..] = rest else { return Ok((micros, rest)) };
    let length = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if !(1..=6).contains(&length) {
        return Err(Fault::Malformed);
    }
    let unit = [100_000, 10_000, 1_000, 100, 10, 1][length - 1];
    micros += i64::from(digits(&fraction[..length])?) * unit;
    Ok((micros, &fraction[length..]))
}

/// Reads what is left of a timestamp: nothing, or `+HH[:MM[:SS]]`, in microseconds east of UTC.
fn parse_offset(text: &[u8]) -> Result<i64, Fault> {
    let (sign, text) = match text {
        [] | b"+00" => return Ok(0),
        [b'+', rest @ ..] => (1, rest),
        [b'-', rest @ ..] => (-1, rest),
        _ => return Err(Fault::Malformed),
    };
    let mut seconds = 0;
    for (part, unit) in text.split(|&byte| byte == b':').zip([3600, 60, 1, 0]) {
        if part.len() != 2 || unit == 0 {
            return Err(Fault::Malformed);
        }
        seconds += i64::from(digits(part)?) * unit;
    }
    Ok(sign * seconds * 1_000_000)
}

/// A decimal number of at most 7 digits.
#[inline]
fn digits(text: &[u8]) -> Result<i32, Fault> {
    text.iter().try_fold(0i32, |sum, byte| match byte.wrapping_sub(b'0') {
        digit @ 0..=9 => Ok(sum * 10 + i32::from(digit)),
        _ => Err(Fault::Malformed),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_counted_as_calendars_count_them() {
        assert_eq!(days_from_civil(1970, 1, 1), 0);
        assert_eq!(days_from_civil(2000, 1, 1), EPOCH_DAYS);
        assert_eq!(days_from_civil(2000, 3, 1), EPOCH_DAYS + 60);
        assert_eq!(days_from_civil(1, 1, 1), -719_162);
        assert_eq!(days_from_civil(9999, 12, 31), 2_932_896);
        assert_eq!(days_from_civil(0, 12, 31), -719_163);
    }

    fn micros(text: &str) -> Result<i64, Fault> {
        let mut out = Vec::new();
        push_timestamp_text(text.as_bytes(), TimeRange::WIDE, &mut out)?;
        Ok(i64::from_le_bytes(out.try_into().unwrap()))
    }

    #[test]
    fn timestamps_in_text() {
        assert_eq!(micros("1970-01-01 00:00:00"), Ok(0));
        assert_eq!(micros("1970-01-01 00:00:00.5+00"), Ok(500_000));
        assert_eq!(micros("1969-12-31 23:59:59.999999"), Ok(-1));
        assert_eq!(micros("1970-01-01 05:45:30+05:45:30"), Ok(0));
        assert_eq!(micros("1970-01-01 00:00:00-08"), Ok(8 * 3_600_000_000));
        assert_eq!(micros("infinity"), Err(Fault::Unrepresentable));
        assert_eq!(micros("10000-01-01 00:00:00"), Err(Fault::Unrepresentable));
        assert_eq!(micros("294276-12-31 23:59:59.999999+00"), Err(Fault::Unrepresentable));
        assert_eq!(micros("5874897-12-31 00:00:00"), Err(Fault::Unrepresentable));
        assert_eq!(micros("0044-03-15 12:00:00 BC"), Err(Fault::Unrepresentable));
        for bad in [
            "",
            "1970-01-01",
            "1970-01-01 00:00",
            "1970-01-01 00:00:00.",
            "1970-13-01 00:00:00",
            "1970-01-01 00:00:00+",
            "70-01-01 00:00:00",
            "1970-01-01 00:00:00.1234567",
            "9999999-01-01 00:00:00",
        ] {
            assert_eq!(micros(bad), Err(Fault::Malformed), "{bad}");
        }
    }
}
