//! Times as they stand in texts: `2010-01-01T01:00:00.250Z`.

use super::coder::Coder;

/// Bytes before a fraction.
const SECONDS_LEN: usize = "2010-01-01T01:00:00".len();

/// Digits of a fraction, and bytes behind it (`Z`, `+01:00`).
const DIGITS_MAX: usize = 9;
const ZONE_MAX: usize = 6;

const DAY_S: i64 = 86_400;

/// How times of a column are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TimeForm {
    /// Between date and time.
    separator: u8,
    digits: usize,
    zone: Vec<u8>,
}

impl TimeForm {
    /// The form of a time, if it is one.
    pub(super) fn of(text: &[u8]) -> Option<TimeForm> {
        let separator = *text.get(10)?;
        let rest = text.get(SECONDS_LEN..)?;
        let (digits, zone) = match rest.split_first() {
            Some((b'.', fraction)) => {
                let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
                (digits, &fraction[digits..])
            }
            _ => (0, rest),
        };
        let is_known = matches!(separator, b'T' | b' ') && digits <= DIGITS_MAX && zone.len() <= ZONE_MAX;
        let has_point = rest.first() == Some(&b'.');
        (is_known && (!has_point || digits > 0)).then(|| TimeForm { separator, digits, zone: zone.to_vec() })
    }

    /// The number of a time, if it is written exactly so.
    pub(super) fn number(&self, text: &[u8], again: &mut Vec<u8>) -> Option<i64> {
        let digits = |from: usize, len: usize| {
            let digit = |n: i64, byte: &u8| byte.is_ascii_digit().then(|| n * 10 + i64::from(byte - b'0'));
            text.get(from..from + len)?.iter().try_fold(0, digit)
        };
        let day = day_of(digits(0, 4)?, digits(5, 2)?, digits(8, 2)?)?;
        let second = digits(11, 2)? * 3_600 + digits(14, 2)? * 60 + digits(17, 2)?;
        let fraction = if self.digits == 0 { 0 } else { digits(SECONDS_LEN + 1, self.digits)? };
        let seconds = (day * DAY_S + second).checked_mul(10_i64.pow(self.digits as u32))?;
        let number = seconds.checked_add(fraction)?;
        again.clear();
        self.push(number, again)?;
        (again == text).then_some(number)
    }

    /// Appends the time of a number; `None` if it is of no year from 0 to 9999.
    pub(super) fn push(&self, number: i64, out: &mut Vec<u8>) -> Option<()> {
        let unit = 10_i64.pow(self.digits as u32);
        let (seconds, fraction) = (number.div_euclid(unit), number.rem_euclid(unit));
        let (year, month, day) = date_of(seconds.div_euclid(DAY_S))?;
        let second = seconds.rem_euclid(DAY_S);
        let mut put = |number: i64, len: u32, behind: u8| {
            out.extend((0..len).rev().map(|at| b'0' + (number / 10_i64.pow(at) % 10) as u8));
            out.push(behind);
        };
        put(year, 4, b'-');
        put(month, 2, b'-');
        put(day, 2, self.separator);
        put(second / 3_600, 2, b':');
        put(second / 60 % 60, 2, b':');
        put(second % 60, 2, b'.');
        match self.digits {
            0 => drop(out.pop()),
            digits => {
                put(fraction, digits as u32, 0);
                out.pop();
            }
        }
        out.extend_from_slice(&self.zone);
        Some(())
    }

    pub(super) fn write<C: Coder>(&self, coder: &mut C) {
        coder.plain(u64::from(self.separator == b' '), 1);
        coder.plain(self.digits as u64, 4);
        coder.plain(self.zone.len() as u64, 3);
        for byte in &self.zone {
            coder.plain(u64::from(*byte), 8);
        }
    }

    pub(super) fn read<C: Coder>(coder: &mut C) -> Option<TimeForm> {
        let separator = if coder.plain(0, 1) == 0 { b'T' } else { b' ' };
        let digits = Some(coder.plain(0, 4) as usize).filter(|digits| *digits <= DIGITS_MAX)?;
        let len = Some(coder.plain(0, 3)).filter(|len| *len <= ZONE_MAX as u64)?;
        Some(TimeForm { separator, digits, zone: (0..len).map(|_| coder.plain(0, 8) as u8).collect() })
    }
}

/// Days from 1970-01-01 to a date of the Gregorian calendar.
fn day_of(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // The year begins in March, so that the leap day is its last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let of_years = year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    Some(of_years + (month * 153 + 2) / 5 + day - 1 - 719_468)
}

/// The inverse.
fn date_of(day: i64) -> Option<(i64, i64, i64)> {
    let day = day.checked_add(719_468)?;
    let (era, day) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let year = era.checked_mul(400)? + year + i64::from(month >= 10);
    let month = if month < 10 { month + 3 } else { month - 9 };
    (0..=9_999).contains(&year).then_some((year, month, day))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_come_back_as_they_were() {
        for text in [
            "1970-01-01T00:00:00",
            "2010-01-01T01:00:00",
            "2024-02-29 23:59:59.000001Z",
            "0000-01-01T00:00:00+01:00",
            "9999-12-31T23:59:59.999",
            "2199-12-31T23:59:59.999999999",
        ] {
            let form = TimeForm::of(text.as_bytes()).expect(text);
            let number = form.number(text.as_bytes(), &mut Vec::new()).expect(text);
            let mut again = Vec::new();
            form.push(number, &mut again).expect(text);
            assert_eq!(again, text.as_bytes());
        }
        let form = TimeForm::of(b"2010-01-01T01:00:00").expect("a time");
        assert_eq!(form.number(b"1970-01-02T00:00:01", &mut Vec::new()), Some(DAY_S + 1));
        for text in
            ["2023-02-29T00:00:00", "2010-01-01T24:00:00", "2010-13-01T00:00:00", "2010-01-01T01:00:60"]
        {
            assert_eq!(form.number(text.as_bytes(), &mut Vec::new()), None, "{text}");
        }
        for text in
            ["2010-01-01", "2010-01-01T01:00:00.", "2010-01-01x01:00:00", "2010-01-01T01:00:00 and more"]
        {
            assert_eq!(TimeForm::of(text.as_bytes()), None, "{text}");
        }
    }
}
