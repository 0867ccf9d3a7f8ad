//! Times in text as numbers: ISO 8601 up to what stands behind the smallest unit, which is left as it is.

use super::numbers::push_decimal;

/// How much of a time is written, and with what between date and hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Form {
    /// Minutes; else seconds with so many digits behind the point.
    places: Option<u8>,
    between: u8,
}

const PLACES_MAX: u8 = 9;
const MINUTES: u8 = 15;
const SPACE: u8 = 16;

impl Form {
    pub(super) fn read(byte: u8) -> Option<Form> {
        let between = if byte & SPACE == 0 { b'T' } else { b' ' };
        match byte & !SPACE {
            MINUTES => Some(Form { places: None, between }),
            places if places <= PLACES_MAX => Some(Form { places: Some(places), between }),
            _ => None,
        }
    }

    pub(super) fn byte(self) -> u8 {
        self.places.unwrap_or(MINUTES) | if self.between == b' ' { SPACE } else { 0 }
    }

    /// Units in a minute.
    fn in_minute(self) -> i64 {
        self.places.map_or(1, |places| 60 * 10_i64.pow(places.into()))
    }
}

/// A time as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Time {
    year: u16,
    month: u8,
    day: u8,
    minute_of_day: u16,
    /// Units of the form in the minute.
    rest: i64,
}

const MINUTES_IN_DAY: i64 = 24 * 60;

/// Days from 1970 to the last of 9999, and from the first of the year 0.
const DAYS_MAX: i64 = 2_932_896;
const DAYS_MIN: i64 = -719_528;

impl Time {
    /// The time with which a text begins, its form, and what stands behind; `None` if it begins with none, or would not come back.
    pub(super) fn parse(text: &[u8]) -> Option<(Form, Time, &[u8])> {
        let head = text.first_chunk::<16>()?;
        let number = |from: usize, len: usize| {
            head[from..from + len].iter().try_fold(0u16, |value, digit| {
                digit.is_ascii_digit().then(|| value * 10 + u16::from(digit - b'0'))
            })
        };
        let is_between =
            head[4] == b'-' && head[7] == b'-' && head[13] == b':' && matches!(head[10], b'T' | b' ');
        if !is_between {
            return None;
        }
        let (year, month, day) = (number(0, 4)?, number(5, 2)? as u8, number(8, 2)? as u8);
        let (hour, minute) = (number(11, 2)?, number(14, 2)?);
        let mut time = Time { year, month, day, minute_of_day: hour * 60 + minute, rest: 0 };
        let is_a_day = (1..=12).contains(&month) && (1..=days_in_month(year, month)).contains(&day);
        if !is_a_day || hour > 23 || minute > 59 {
            return None;
        }
        let (mut form, mut behind) = (Form { places: None, between: head[10] }, &text[16..]);
        if let [b':', tens @ b'0'..=b'5', ones @ b'0'..=b'9', rest @ ..] = behind {
            (time.rest, behind) = (i64::from(tens - b'0') * 10 + i64::from(ones - b'0'), rest);
            form.places = Some(0);
            let digits = rest.strip_prefix(b".").unwrap_or_default();
            let places = digits.iter().take_while(|digit| digit.is_ascii_digit()).count();
            if (1..=usize::from(PLACES_MAX)).contains(&places) {
                let add = |value, digit: &u8| value * 10 + i64::from(digit - b'0');
                time.rest = digits[..places].iter().fold(time.rest, add);
                (form.places, behind) = (Some(places as u8), &digits[places..]);
            }
        }
        Some((form, time, behind))
    }

    /// Units of the form since 1970; `None` if they are too many.
    pub(super) fn number(&self, form: Form) -> Option<i64> {
        let minutes = days(self.year, self.month, self.day) * MINUTES_IN_DAY + i64::from(self.minute_of_day);
        minutes.checked_mul(form.in_minute())?.checked_add(self.rest)
    }

    /// The time of so many units since 1970; `None` if it has no year of four digits.
    pub(super) fn of(form: Form, number: i64) -> Option<Time> {
        let (minutes, rest) = (number.div_euclid(form.in_minute()), number.rem_euclid(form.in_minute()));
        let days = minutes.div_euclid(MINUTES_IN_DAY);
        if !(DAYS_MIN..=DAYS_MAX).contains(&days) {
            return None;
        }
        let (year, month, day) = date(days);
        Some(Time { year, month, day, minute_of_day: minutes.rem_euclid(MINUTES_IN_DAY) as u16, rest })
    }

    pub(super) fn push(&self, form: Form, out: &mut Vec<u8>) {
        let two = |value: u16| [b'0' + (value / 10 % 10) as u8, b'0' + (value % 10) as u8];
        let [[a, b], [c, d]] = [two(self.year / 100), two(self.year % 100)];
        let [[e, f], [g, h]] = [two(self.month.into()), two(self.day.into())];
        let [[i, j], [k, l]] = [two(self.minute_of_day / 60), two(self.minute_of_day % 60)];
        out.extend([a, b, c, d, b'-', e, f, b'-', g, h, form.between, i, j, b':', k, l]);
        let Some(places) = form.places else { return };
        let unit = 10_i64.pow(places.into());
        let [tens, ones] = two((self.rest / unit) as u16);
        out.extend([b':', tens, ones]);
        if places > 0 {
            out.push(b'.');
            push_decimal((self.rest % unit) as u64, places.into(), out);
        }
    }
}

fn is_leap(year: u16) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_in_month(year: u16, month: u8) -> u8 {
    match month {
        2 => 28 + u8::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970. Years are counted from March on, so that the day that a leap year has more stands last.
fn days(year: u16, month: u8, day: u8) -> i64 {
    let (month, day) = (i64::from(month), i64::from(day));
    let year = i64::from(year) - i64::from(month <= 2);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year - 719_468
}

/// The other way round.
fn date(days: i64) -> (u16, u8, u8) {
    const DAYS_OF_400_YEARS: i64 = 146_097;
    let days = days + 719_468;
    let (of_400, day) = (days.div_euclid(DAYS_OF_400_YEARS), days.rem_euclid(DAYS_OF_400_YEARS));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    ((of_400 * 400 + year + i64::from(month <= 2)) as u16, month as u8, day as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(form: Form, number: i64) -> Option<String> {
        let mut out = Vec::new();
        Time::of(form, number)?.push(form, &mut out);
        String::from_utf8(out).ok()
    }

    /// Every day from the year 0 to 9999 is its number and comes back, and there is none beyond.
    #[test]
    fn every_day_comes_back() {
        let form = Form { places: None, between: b'T' };
        let mut last = None;
        for day in DAYS_MIN..=DAYS_MAX {
            let number = day * MINUTES_IN_DAY + 61;
            let time = Time::of(form, number).expect("a time");
            assert_eq!(time.number(form), Some(number));
            assert!(last.is_none_or(|last| last < (time.year, time.month, time.day)));
            last = Some((time.year, time.month, time.day));
        }
        assert_eq!(last, Some((9999, 12, 31)));
        assert_eq!(text(form, 0).as_deref(), Some("1970-01-01T00:00"));
        assert_eq!(text(form, DAYS_MIN * MINUTES_IN_DAY).as_deref(), Some("0000-01-01T00:00"));
        for beyond in [DAYS_MIN - 1, DAYS_MAX + 1, i64::MAX / MINUTES_IN_DAY, i64::MIN / MINUTES_IN_DAY] {
            assert_eq!(text(form, beyond * MINUTES_IN_DAY), None);
        }
    }

    /// A day that there is not is no time: it would come back as another.
    #[test]
    fn a_day_that_there_is_not_is_no_time() {
        for year in [1900, 2000, 2023, 2024] {
            for (month, day) in (0..=13).flat_map(|month| (0..=32).map(move |day| (month, day))) {
                let text = format!("{year}-{month:02}-{day:02}T00:00");
                let is_a_day = jiff::civil::Date::new(year, month, day).is_ok();
                assert_eq!(Time::parse(text.as_bytes()).is_some(), is_a_day, "{text}");
            }
        }
    }

    #[test]
    fn times_are_numbers_where_they_come_back() {
        for (text, places, behind) in [
            ("2026-11-27T18:02:03Z", Some(0), "Z"),
            ("2026-11-27 18:02:03", Some(0), ""),
            ("2024-02-29T00:00", None, ""),
            ("2026-11-27T18:02+01:00", None, "+01:00"),
            ("2026-11-27T18:02:03.000Z", Some(3), "Z"),
            ("2026-11-27T18:02:03.123456789Z", Some(9), "Z"),
            ("2026-11-27T18:02:03.1234567890Z", Some(0), ".1234567890Z"),
            ("2026-11-27T18:02:03.Z", Some(0), ".Z"),
            ("2026-11-27T18:02:60Z", None, ":60Z"),
        ] {
            let (form, time, rest) = Time::parse(text.as_bytes()).expect(text);
            assert_eq!((form.places, rest), (places, behind.as_bytes()), "{text}");
            assert_eq!(Form::read(form.byte()), Some(form));
            let number = time.number(form).expect("in range");
            let mut out = Vec::new();
            Time::of(form, number).expect("a time").push(form, &mut out);
            assert_eq!([&out[..], rest].concat(), text.as_bytes());
        }
        for text in [
            "2026-11-27",
            "2026-02-29T00:00Z",
            "2026-13-01T00:00Z",
            "2026-00-01T00:00Z",
            "2026-01-00T00:00Z",
            "2026-11-27T24:00:00Z",
            "2026-11-27T18:60:00Z",
            "2026-11-27t18:00:00Z",
            "2026/11/27T18:00:00Z",
            "x026-11-27T18:00:00Z",
        ] {
            assert_eq!(Time::parse(text.as_bytes()), None, "{text}");
        }
    }
}
