//! `date`, `timestamp[tz]` and `time` in both forms. Pure.
//!
//! Binary: days, or microseconds, since 2000-01-01; the extreme integers are the infinities. Text: the
//! ISO style, which every source session pins, with `BC` behind years before 1.

use super::{Fault, Field};

/// Days from 1970-01-01, where ClickHouse counts from, to 2000-01-01, where PostgreSQL does.
const EPOCH_DAYS: i32 = 10_957;
const DAY_MICROS: i64 = 86_400_000_000;
/// The last year of `date` (PostgreSQL documentation, section 8.5); its days fit an `i32`.
const YEAR_MAX: i32 = 5_874_897;

/// What the destination's `Date32` and `DateTime64` hold. Releases differ, and in some of them the two
/// types do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeRange {
    dates: Days,
    moments: Days,
}

impl TimeRange {
    /// 1900 to 2299: what every supported ClickHouse holds.
    pub const NARROW: TimeRange = TimeRange::new(false, false);

    /// The years 1 to 9999, which need no more than four digits.
    pub const WIDE: TimeRange = TimeRange::new(true, true);

    /// Whether `Date32` and `DateTime64` hold the years 1 to 9999, not only 1900 to 2299.
    pub const fn new(wide_dates: bool, wide_moments: bool) -> Self {
        Self {
            dates: if wide_dates { Days::WIDE } else { Days::NARROW },
            moments: if wide_moments { Days::WIDE } else { Days::NARROW },
        }
    }
}

/// Days since 1970-01-01, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Days {
    first: i32,
    last: i32,
}

impl Days {
    const NARROW: Days = Days { first: days_from_civil(1900, 1, 1), last: days_from_civil(2299, 12, 31) };
    const WIDE: Days = Days { first: days_from_civil(1, 1, 1), last: days_from_civil(9999, 12, 31) };

    #[inline]
    fn hold_day(self, day: i32) -> bool {
        self.first <= day && day <= self.last
    }

    #[inline]
    fn hold_micros(self, micros: i64) -> bool {
        let first = self.first as i64 * DAY_MICROS;
        let end = (self.last as i64 + 1) * DAY_MICROS;
        first <= micros && micros < end
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

/// Appends a `date` to a `Date32` column.
#[inline]
pub(super) fn push_date(field: Field<'_>, range: TimeRange, out: &mut Vec<u8>) -> Result<(), Fault> {
    let day = day(field)?;
    if !range.dates.hold_day(day) {
        return Err(Fault::Unrepresentable);
    }
    out.extend_from_slice(&day.to_le_bytes());
    Ok(())
}

/// Appends a `date` to a `Date` column, which holds 1970-01-01 to 2149-06-06.
pub(super) fn push_narrow_date(field: Field<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    let day = u16::try_from(day(field)?).map_err(|_| Fault::Unrepresentable)?;
    out.extend_from_slice(&day.to_le_bytes());
    Ok(())
}

/// Appends a `timestamp[tz]` to a `DateTime64(6)` column.
#[inline]
pub(super) fn push_timestamp(field: Field<'_>, range: TimeRange, out: &mut Vec<u8>) -> Result<(), Fault> {
    let micros = micros(field)?;
    if !range.moments.hold_micros(micros) {
        return Err(Fault::Unrepresentable);
    }
    out.extend_from_slice(&micros.to_le_bytes());
    Ok(())
}

/// Appends a `timestamp[tz]` to a `DateTime64(scale)` column.
pub(super) fn push_scaled_timestamp(
    field: Field<'_>,
    scale: u8,
    range: TimeRange,
    out: &mut Vec<u8>,
) -> Result<(), Fault> {
    let micros = micros(field)?;
    if !range.moments.hold_micros(micros) {
        return Err(Fault::Unrepresentable);
    }
    out.extend_from_slice(&scaled(micros, scale)?.to_le_bytes());
    Ok(())
}

/// Appends a `timestamp[tz]` to a `DateTime` column, which holds 1970-01-01 to 2106-02-07.
pub(super) fn push_seconds(field: Field<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    let seconds = u32::try_from(scaled(micros(field)?, 0)?).map_err(|_| Fault::Unrepresentable)?;
    out.extend_from_slice(&seconds.to_le_bytes());
    Ok(())
}

/// Appends a `time` to a `Time64(scale)` column.
pub(super) fn push_time64(field: Field<'_>, scale: u8, out: &mut Vec<u8>) -> Result<(), Fault> {
    let micros = match field {
        Field::Binary(bytes) => i64::from_be_bytes(bytes.try_into().map_err(|_| Fault::Malformed)?),
        Field::Text(text) => match parse_time(text)? {
            (micros, []) => micros,
            _ => return Err(Fault::Malformed),
        },
        Field::Null => return Err(Fault::Null),
    };
    if !(0..=DAY_MICROS).contains(&micros) {
        return Err(Fault::Malformed);
    }
    out.extend_from_slice(&scaled(micros, scale)?.to_le_bytes());
    Ok(())
}

/// Microseconds in units of `scale` digits of a second; what does not come out even is refused.
fn scaled(micros: i64, scale: u8) -> Result<i64, Fault> {
    const UNITS: [i64; 7] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000];
    let unit = |digits: u8| UNITS.get(usize::from(digits)).copied().ok_or(Fault::Unrepresentable);
    match scale.checked_sub(6) {
        Some(more) => micros.checked_mul(unit(more)?).ok_or(Fault::Unrepresentable),
        None => {
            let unit = unit(6 - scale)?;
            if micros % unit == 0 { Ok(micros / unit) } else { Err(Fault::Unrepresentable) }
        }
    }
}

/// Days since 1970-01-01.
#[inline]
fn day(field: Field<'_>) -> Result<i32, Fault> {
    match field {
        Field::Binary(bytes) => {
            let days = i32::from_be_bytes(bytes.try_into().map_err(|_| Fault::Malformed)?);
            // The infinities overflow or are far out of range.
            days.checked_add(EPOCH_DAYS).ok_or(Fault::Unrepresentable)
        }
        Field::Text(text) => day_of_text(text),
        Field::Null => Err(Fault::Null),
    }
}

fn day_of_text(text: &[u8]) -> Result<i32, Fault> {
    if is_infinity(text) {
        return Err(Fault::Unrepresentable);
    }
    let (text, before_christ) = take_era(text);
    match parse_day(text, before_christ)? {
        (day, []) => Ok(day),
        _ => Err(Fault::Malformed),
    }
}

/// Microseconds since 1970-01-01.
#[inline]
fn micros(field: Field<'_>) -> Result<i64, Fault> {
    match field {
        Field::Binary(bytes) => {
            let micros = i64::from_be_bytes(bytes.try_into().map_err(|_| Fault::Malformed)?);
            micros.checked_add(EPOCH_DAYS as i64 * DAY_MICROS).ok_or(Fault::Unrepresentable)
        }
        Field::Text(text) => micros_of_text(text),
        Field::Null => Err(Fault::Null),
    }
}

fn micros_of_text(text: &[u8]) -> Result<i64, Fault> {
    if is_infinity(text) {
        return Err(Fault::Unrepresentable);
    }
    let (text, before_christ) = take_era(text);
    let (day, rest) = parse_day(text, before_christ)?;
    let [b' ', time @ ..] = rest else { return Err(Fault::Malformed) };
    let (time, rest) = parse_time(time)?;
    let offset = parse_offset(rest)?;
    // No timestamp of PostgreSQL overflows, but a text may say anything.
    let micros = i64::from(day).checked_mul(DAY_MICROS).and_then(|day| day.checked_add(time - offset));
    micros.ok_or(Fault::Unrepresentable)
}

/// Appends `HH:MM:SS[.ffffff]`, without zeros at the end, as `time_out` writes it.
pub(super) fn push_time(micros: i64, out: &mut Vec<u8>) {
    let (seconds, fraction) = (micros / 1_000_000, micros % 1_000_000);
    let text = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    out.extend_from_slice(text.as_bytes());
    if fraction != 0 {
        out.extend_from_slice(format!(".{fraction:06}").trim_end_matches('0').as_bytes());
    }
}

/// Appends `+HH[:MM[:SS]]` for a zone so many seconds west of Greenwich.
pub(super) fn push_zone(west: i32, out: &mut Vec<u8>) {
    let (sign, seconds) = (if west <= 0 { '+' } else { '-' }, west.unsigned_abs());
    let mut text = format!("{sign}{:02}", seconds / 3600);
    if seconds % 3600 != 0 {
        text.push_str(&format!(":{:02}", seconds / 60 % 60));
    }
    if seconds % 60 != 0 {
        text.push_str(&format!(":{:02}", seconds % 60));
    }
    out.extend_from_slice(text.as_bytes());
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
        push_timestamp(Field::Text(text.as_bytes()), TimeRange::WIDE, &mut out)?;
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
