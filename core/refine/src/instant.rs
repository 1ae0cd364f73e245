//! Dates and instants from text and from epoch numbers.
//!
//! ```text
//! date        2026-11-23
//! timestamp   2026-11-23T23:24:04.123456Z   RFC 3339, any offset, 't', 'z' and a blank between date and time allowed
//!             2026-11-23 23:24:04.123456    without an offset: the contract's zone, UTC where it names none
//!             1795476244                    |n| <  10^11: seconds        (until the year 5138)
//!             1795476244123                 |n| <  10^14: milliseconds   (before 1973-03-03 they read as seconds)
//!             1795476244123456              |n| <  10^17: microseconds
//! ```
//!
//! Fractions of a second have one to nine digits; those behind the microsecond are cut, since that is what the column
//! keeps. Everything else is exact or refused: no two-digit years, no `24:00`, no leap second (`:60`), no zone names.

use jiff::civil;
use jiff::tz::TimeZone;

/// Why a text or number is no instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoInstant {
    /// Not in one of the notations.
    Syntax,
    /// In the notation, but no such day, time or epoch number.
    Range,
}

pub(crate) const MICROS: i64 = 1_000_000;

/// Days since 1970-01-01 of `YYYY-MM-DD`.
pub(crate) fn date(text: &str) -> Result<i32, NoInstant> {
    let mut scan = Scan { rest: text.as_bytes() };
    let date = scan.date()?;
    scan.end()?;
    let seconds = utc_seconds(date, 0)?;
    i32::try_from(seconds.div_euclid(86_400)).map_err(|_| NoInstant::Range)
}

/// Microseconds since the epoch. `local`: seconds east of UTC of a text that names no offset, where that is known.
pub(crate) fn timestamp(text: &str, local: Option<i64>) -> Result<i64, NoInstant> {
    let mut scan = Scan { rest: text.as_bytes() };
    let date = scan.date()?;
    let separator = scan.byte()?;
    if !matches!(separator, b'T' | b't' | b' ') {
        return Err(NoInstant::Syntax);
    }
    let hour = scan.two()?;
    scan.expect(b':')?;
    let minute = scan.two()?;
    scan.expect(b':')?;
    let second = scan.two()?;
    let micros = scan.fraction()?;
    let offset = match (scan.offset()?.or(local), separator) {
        (Some(seconds), _) => seconds,
        (None, b' ') => 0,
        // RFC 3339 has no local time: "T" without an offset could be anywhere.
        (None, _) => return Err(NoInstant::Syntax),
    };
    if hour > 23 || minute > 59 || second > 59 {
        return Err(NoInstant::Range);
    }
    let of_day = i64::from(hour) * 3_600 + i64::from(minute) * 60 + i64::from(second);
    Ok((utc_seconds(date, of_day)? - offset) * MICROS + micros)
}

/// Microseconds since the epoch of seconds, milliseconds or microseconds, told apart by magnitude.
pub(crate) fn epoch(number: i64) -> Result<i64, NoInstant> {
    match number.unsigned_abs() {
        size if size < 10u64.pow(11) => Ok(number * MICROS),
        size if size < 10u64.pow(14) => Ok(number * 1_000),
        size if size < 10u64.pow(17) => Ok(number),
        _ => Err(NoInstant::Range),
    }
}

pub(crate) fn utc_micros(at: civil::DateTime) -> Result<i64, NoInstant> {
    TimeZone::UTC
        .to_timestamp(at)
        .map(|timestamp| timestamp.as_microsecond())
        .map_err(|_| NoInstant::Range)
}

/// Seconds since the epoch of a second of a day in UTC, within what jiff has a timestamp for.
fn utc_seconds(date: civil::Date, of_day: i64) -> Result<i64, NoInstant> {
    // Years begin in March here, so that the day that some of them have more is their last one.
    let (month, day) = (i64::from(date.month()), i64::from(date.day()));
    let year = i64::from(date.year()) - i64::from(month <= 2);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    // Between the 1st of March of the year 0 and 1970-01-01.
    let days = year * 365 + leap_days + of_year - 719_468;
    let seconds = days * 86_400 + of_day;
    let known = jiff::Timestamp::MIN.as_second()..=jiff::Timestamp::MAX.as_second();
    if known.contains(&seconds) { Ok(seconds) } else { Err(NoInstant::Range) }
}

/// For people.
pub(crate) fn shown(micros: i64) -> String {
    jiff::Timestamp::from_microsecond(micros)
        .map_or_else(|_| micros.to_string(), |at| at.to_string())
}

/// For people: days since the epoch.
pub(crate) fn shown_date(days: i32) -> String {
    let at = jiff::Timestamp::from_second(i64::from(days) * 86_400);
    at.map_or_else(|_| days.to_string(), |at| at.to_zoned(TimeZone::UTC).date().to_string())
}

/// Reads fixed-width fields from the front.
struct Scan<'a> {
    rest: &'a [u8],
}

impl Scan<'_> {
    fn byte(&mut self) -> Result<u8, NoInstant> {
        let (&first, rest) = self.rest.split_first().ok_or(NoInstant::Syntax)?;
        self.rest = rest;
        Ok(first)
    }

    fn expect(&mut self, wanted: u8) -> Result<(), NoInstant> {
        if self.byte()? == wanted { Ok(()) } else { Err(NoInstant::Syntax) }
    }

    fn digit(&mut self) -> Result<i8, NoInstant> {
        let byte = self.byte()?;
        if byte.is_ascii_digit() { Ok((byte - b'0') as i8) } else { Err(NoInstant::Syntax) }
    }

    fn two(&mut self) -> Result<i8, NoInstant> {
        Ok(self.digit()? * 10 + self.digit()?)
    }

    fn date(&mut self) -> Result<civil::Date, NoInstant> {
        let year = i16::from(self.two()?) * 100 + i16::from(self.two()?);
        self.expect(b'-')?;
        let month = self.two()?;
        self.expect(b'-')?;
        let day = self.two()?;
        civil::Date::new(year, month, day).map_err(|_| NoInstant::Range)
    }

    /// Microseconds of an optional `.f{1,9}`.
    fn fraction(&mut self) -> Result<i64, NoInstant> {
        if self.rest.first() != Some(&b'.') {
            return Ok(0);
        }
        self.byte()?;
        let mut nanos = i64::from(self.digit()?);
        let mut digits = 1;
        while digits < 9 && self.rest.first().is_some_and(u8::is_ascii_digit) {
            nanos = nanos * 10 + i64::from(self.digit()?);
            digits += 1;
        }
        Ok(nanos * 10i64.pow(9 - digits) / 1_000)
    }

    /// Seconds east of UTC, or `None` at the end of the text.
    fn offset(&mut self) -> Result<Option<i64>, NoInstant> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let sign = match self.byte()? {
            b'Z' | b'z' => 0,
            b'+' => 1,
            b'-' => -1,
            _ => return Err(NoInstant::Syntax),
        };
        if sign == 0 {
            self.end()?;
            return Ok(Some(0));
        }
        let hours = i64::from(self.two()?);
        self.expect(b':')?;
        let minutes = i64::from(self.two()?);
        self.end()?;
        if hours > 23 || minutes > 59 {
            return Err(NoInstant::Range);
        }
        Ok(Some(sign * (hours * 3_600 + minutes * 60)))
    }

    fn end(&self) -> Result<(), NoInstant> {
        if self.rest.is_empty() { Ok(()) } else { Err(NoInstant::Syntax) }
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil;

    use super::{NoInstant, date, epoch, timestamp, utc_micros, utc_seconds};

    #[test]
    fn seconds_are_those_of_jiff_on_every_day_of_the_calendar() {
        let mut day = civil::date(0, 1, 1);
        loop {
            for (time, of_day) in
                [(civil::time(0, 0, 0, 0), 0), (civil::time(23, 59, 59, 0), 86_399)]
            {
                let expected = utc_micros(day.to_datetime(time)).map(|micros| micros / 1_000_000);
                assert_eq!(utc_seconds(day, of_day), expected, "{day} {time}");
            }
            match day.tomorrow() {
                Ok(next) => day = next,
                Err(_) => break,
            }
        }
    }

    #[test]
    fn dates_count_days_from_the_epoch() {
        assert_eq!(date("1970-01-01"), Ok(0));
        assert_eq!(date("1969-12-31"), Ok(-1));
        assert_eq!(date("2000-02-29"), Ok(11_016));
        assert_eq!(date("2100-02-29"), Err(NoInstant::Range));
        for text in ["", "2000-2-9", "2000-02-29T", "20000229", "-200-01-01", "2000/02/29"] {
            assert_eq!(date(text), Err(NoInstant::Syntax), "{text}");
        }
    }

    #[test]
    fn timestamps_are_microseconds_in_utc() {
        let at = 1_795_476_244_123_456;
        for text in [
            "2026-11-23T23:24:04.123456Z",
            "2026-11-23t23:24:04.123456z",
            "2026-11-23 23:24:04.123456",
            "2026-11-23 23:24:04.123456Z",
            "2026-11-24T08:24:04.123456+09:00",
            "2026-11-23T18:24:04.123456-05:00",
            "2026-11-23T23:24:04.123456789Z",
        ] {
            assert_eq!(timestamp(text, None), Ok(at), "{text}");
        }
        assert_eq!(timestamp("2026-11-23 23:24:04", None), Ok(1_795_476_244_000_000));
        assert_eq!(timestamp("2026-11-23 23:24:04.5", None), Ok(1_795_476_244_500_000));
        assert_eq!(timestamp("1969-12-31T23:59:59.999999Z", None), Ok(-1));
    }

    #[test]
    fn what_is_no_instant_is_refused() {
        for text in [
            "",
            "2026-11-23",
            "2026-11-23T23:24:04",
            "2026-11-23 23:24",
            "2026-11-23 23:24:04.",
            "2026-11-23 23:24:04.1234567890",
            "2026-11-23T23:24:04Zx",
            "2026-11-23T23:24:04+0900",
            "2026-11-23T23:24:04[Asia/Seoul]",
            "yesterday",
        ] {
            assert_eq!(timestamp(text, None), Err(NoInstant::Syntax), "{text}");
        }
        for text in [
            "2026-13-01T00:00:00Z",
            "2026-11-23T24:00:00Z",
            "2026-11-23T23:59:60Z",
            "2026-11-23T00:00:00+24:00",
        ] {
            assert_eq!(timestamp(text, None), Err(NoInstant::Range), "{text}");
        }
    }

    #[test]
    fn epoch_numbers_are_told_apart_by_magnitude() {
        assert_eq!(epoch(0), Ok(0));
        assert_eq!(epoch(1_795_476_244), Ok(1_795_476_244_000_000));
        assert_eq!(epoch(-1), Ok(-1_000_000));
        assert_eq!(epoch(99_999_999_999), Ok(99_999_999_999_000_000));
        assert_eq!(epoch(100_000_000_000), Ok(100_000_000_000_000));
        assert_eq!(epoch(1_795_476_244_123), Ok(1_795_476_244_123_000));
        assert_eq!(epoch(1_795_476_244_123_456), Ok(1_795_476_244_123_456));
        assert_eq!(epoch(99_999_999_999_999_999), Ok(99_999_999_999_999_999));
        assert_eq!(epoch(100_000_000_000_000_000), Err(NoInstant::Range));
        assert_eq!(epoch(i64::MIN), Err(NoInstant::Range));
    }
}
