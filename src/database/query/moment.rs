//! What a time is, and the buckets that times fall into.

use jiff::civil::{Date, DateTime};
use jiff::fmt::temporal::DateTimeParser;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Unit};
use serde_json::Value;

use crate::database::DatabaseError;
use crate::replica::clip;

/// Numbers below are seconds since 1970 (up to the year 5138), others milliseconds (from 1973 on).
const MILLISECONDS_FROM: f64 = 1e11;

/// 0001-01-01 and the end of 9999, milliseconds since 1970: years as ISO 8601 writes them with four digits.
const FIRST_MS: i64 = -62_135_596_800_000;
const LAST_MS: i64 = 253_402_300_799_999;

const DAY_MS: i64 = 86_400_000;

/// From Thursday, 1970-01-01, back to a Monday.
const MONDAY_MS: i64 = -3 * DAY_MS;

static PARSER: DateTimeParser = DateTimeParser::new();

/// The time that a value says, milliseconds since 1970; `None` if it says none.
pub(crate) fn moment(value: &Value) -> Option<i64> {
    let ms = match value {
        Value::String(text) => moment_of_text(text)?,
        Value::Number(number) => {
            let number = number.as_f64()?;
            let ms = if number.abs() < MILLISECONDS_FROM { number * 1e3 } else { number };
            // What is beyond becomes the end of the range, which is no time.
            ms.floor() as i64
        }
        _ => return None,
    };
    (FIRST_MS..=LAST_MS).contains(&ms).then_some(ms)
}

/// ISO 8601: date with time and offset, without an offset (UTC), or a date alone (its midnight, UTC).
fn moment_of_text(text: &str) -> Option<i64> {
    // Nothing that is a time is longer, and most texts are none.
    if text.len() > 64 || !text.as_bytes().first()?.is_ascii_digit() {
        return None;
    }
    if let Ok(timestamp) = PARSER.parse_timestamp(text) {
        return Some(floor_ms(timestamp));
    }
    let civil = match PARSER.parse_datetime(text) {
        Ok(civil) => civil,
        Err(_) => PARSER.parse_date(text).ok().map(DateTime::from)?,
    };
    TimeZone::UTC.to_timestamp(civil).ok().map(floor_ms)
}

fn floor_ms(timestamp: Timestamp) -> i64 {
    i64::try_from(timestamp.as_nanosecond().div_euclid(1_000_000)).unwrap_or(i64::MIN)
}

/// The length of buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Every {
    /// So many milliseconds, counted from a moment.
    Fixed { ms: i64, from_ms: i64 },
    /// Months of the calendar, a year being twelve.
    Months(i64),
}

impl Every {
    /// Reads `10s`, `15m`, `1h`, `1d`, `1w`, `1mo` or `1y`.
    ///
    /// # Errors
    /// [`DatabaseError::BadQuery`].
    pub(crate) fn parse(text: &str) -> Result<Every, DatabaseError> {
        let wrong = || DatabaseError::BadQuery {
            reason: format!(
                "{:?} is no length of a bucket: `10s`, `15m`, `1h`, `1d`, `1w`, `1mo` or `1y`",
                clip(text)
            ),
        };
        let (number, unit) = text.split_at(text.bytes().take_while(u8::is_ascii_digit).count());
        let number: i64 =
            number.parse().ok().filter(|number| (1..=1_000_000).contains(number)).ok_or_else(wrong)?;
        let fixed = |unit_ms: i64, from_ms| Every::Fixed { ms: number * unit_ms, from_ms };
        Ok(match unit {
            "s" => fixed(1_000, 0),
            "m" => fixed(60_000, 0),
            "h" => fixed(3_600_000, 0),
            "d" => fixed(DAY_MS, 0),
            "w" => fixed(7 * DAY_MS, MONDAY_MS),
            "mo" => Every::Months(number),
            "y" => Every::Months(number * 12),
            _ => return Err(wrong()),
        })
    }

    /// The beginning of the bucket that a time falls into, as ISO 8601 in UTC.
    pub(super) fn bucket(self, ms: i64) -> Option<String> {
        let begin_ms = match self {
            Every::Fixed { ms: length, from_ms } => (ms - from_ms).div_euclid(length) * length + from_ms,
            Every::Months(months) => {
                let date = utc(ms)?.date();
                let month =
                    (i64::from(date.year()) * 12 + i64::from(date.month()) - 1).div_euclid(months) * months;
                let year = i16::try_from(month.div_euclid(12)).ok()?;
                let begin = Date::new(year, i8::try_from(month.rem_euclid(12) + 1).ok()?, 1).ok()?;
                floor_ms(TimeZone::UTC.to_timestamp(begin.into()).ok()?)
            }
        };
        // The bucket of the first days may begin before the first year that has four digits.
        utc(begin_ms.max(FIRST_MS)).map(|civil| format!("{civil}Z"))
    }
}

/// A time as ISO 8601 in UTC, with milliseconds where it has some.
#[cfg_attr(not(feature = "mqtt"), allow(dead_code))]
pub(crate) fn moment_text(ms: i64) -> Option<String> {
    utc(ms).map(|civil| format!("{civil}Z"))
}

fn utc(ms: i64) -> Option<DateTime> {
    let timestamp = Timestamp::from_millisecond(ms).ok()?.round(Unit::Millisecond).ok()?;
    Some(TimeZone::UTC.to_datetime(timestamp))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn times_are_read() {
        let noon = 1_795_780_800_000;
        for value in [
            json!("2026-11-27T12:00:00Z"),
            json!("2026-11-27T12:00:00.0004Z"),
            json!("2026-11-27 12:00Z"),
            json!("2026-11-27T14:00:00+02:00"),
            json!("2026-11-27T12:00:00"),
            json!("2026-11-27T12:00"),
            json!("20261127T120000Z"),
            json!(noon / 1000),
            json!(noon as f64 / 1000.0),
            json!(noon),
        ] {
            assert_eq!(moment(&value), Some(noon), "{value}");
        }
        assert_eq!(moment(&json!("2026-11-27")), Some(noon - DAY_MS / 2));
        assert_eq!(moment(&json!("1969-12-31T23:59:59.9996Z")), Some(-1));
        assert_eq!((moment(&json!(-0.0005)), moment(&json!(0.0))), (Some(-1), Some(0)));
        for value in [
            json!(null),
            json!(true),
            json!(""),
            json!("boiler"),
            json!("27.11.2026"),
            json!("12:00"),
            json!(1e300),
            json!("2026-13-01"),
            json!([2026]),
            json!("9".repeat(100)),
            json!(u64::MAX),
        ] {
            assert_eq!(moment(&value), None, "{value}");
        }
    }

    #[test]
    fn buckets_begin_where_people_expect_it() {
        for (time, every, begin) in [
            ("2026-11-27T12:34:56.789Z", "10s", "2026-11-27T12:34:50Z"),
            ("2026-11-27T12:34:56Z", "15m", "2026-11-27T12:30:00Z"),
            ("2026-11-27T12:34:56Z", "1h", "2026-11-27T12:00:00Z"),
            ("2026-11-27T12:34:56Z", "1d", "2026-11-27T00:00:00Z"),
            ("2026-11-27T12:34:56Z", "1w", "2026-11-23T00:00:00Z"),
            ("2026-11-23T00:00:00Z", "1w", "2026-11-23T00:00:00Z"),
            ("2026-11-22T23:59:59Z", "1w", "2026-11-16T00:00:00Z"),
            ("2026-11-27T12:34:56Z", "1mo", "2026-11-01T00:00:00Z"),
            ("2026-11-27T12:34:56Z", "3mo", "2026-10-01T00:00:00Z"),
            ("2026-11-27T12:34:56Z", "1y", "2026-01-01T00:00:00Z"),
            ("1969-12-31T23:59:59Z", "1h", "1969-12-31T23:00:00Z"),
            ("0001-01-02", "1000000d", "0001-01-01T00:00:00Z"),
        ] {
            let ms = moment(&json!(time)).expect(time);
            let every = Every::parse(every).expect(every);
            assert_eq!(every.bucket(ms).as_deref(), Some(begin), "{time} {every:?}");
        }
        for text in ["", "h", "0h", "-1h", "1", "1 h", "1h2", "1000001s", "99999999999999999999h", "1H"] {
            assert!(Every::parse(text).is_err(), "{text}");
        }
    }
}
