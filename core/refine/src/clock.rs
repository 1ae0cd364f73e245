//! How the times of one stream are written.
//!
//! In: the text of a time, and when the gateway took the record in. Out: microseconds since the epoch.
//! Promise: the same record gives the same time on replay: what a notation leaves out is taken from the ingest time, which
//! is stored with the block, never from today's clock.
//!
//! Besides what [`crate::instant`] reads anywhere:
//!
//! ```text
//! time_format = "..."    the event time's column only, by jiff's strptime
//! common, combined       10/Oct/2000:13:55:36 -0700
//! syslog                 Oct  1 22:14:15     RFC 3164: no year, no offset. The year that is nearest to the ingest time
//! ```

use garam_stage::{Contract, Format};
use jiff::civil;
use jiff::fmt::strtime::BrokenDownTime;
use jiff::tz::TimeZone;

use crate::error::Unusable;
use crate::instant::{self, MICROS, NoInstant};

const ACCESS: &str = "%d/%b/%Y:%H:%M:%S %z";
const BSD: &str = "%b %e %H:%M:%S";

/// The notations of a stream.
#[derive(Debug)]
pub(crate) struct Clock {
    event_format: Option<String>,
    notation: Option<Notation>,
    /// Seconds east of UTC where a text names no offset.
    local: Option<i64>,
}

#[derive(Debug, Clone, Copy)]
enum Notation {
    Access,
    Bsd,
}

/// The clock for one value of one record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Time<'c> {
    pub(crate) clock: &'c Clock,
    /// Whether the value is the event time.
    pub(crate) is_event: bool,
    pub(crate) ingest_us: i64,
}

impl Clock {
    pub(crate) fn of(contract: &Contract) -> Result<Self, Unusable> {
        let event_format = contract.reading.time_format.clone();
        if let Some(format) = &event_format {
            check(format)?;
        }
        let notation = match contract.format {
            Format::Common | Format::Combined => Some(Notation::Access),
            Format::Syslog => Some(Notation::Bsd),
            _ => None,
        };
        Ok(Self { event_format, notation, local: contract.reading.zone_seconds.map(i64::from) })
    }

    /// Whether a value is written in a format of the operator's, which may be digits alone.
    pub(crate) fn has_own_notation(&self, is_event: bool) -> bool {
        is_event && self.event_format.is_some()
    }
}

impl Time<'_> {
    /// Microseconds since the epoch.
    pub(crate) fn read(self, text: &str) -> Result<i64, NoInstant> {
        let Clock { event_format, notation, local } = self.clock;
        if let (Some(format), true) = (event_format, self.is_event) {
            return by_format(format, text, local.unwrap_or(0));
        }
        match (instant::timestamp(text, *local), notation) {
            (Err(NoInstant::Syntax), Some(Notation::Access)) => by_format(ACCESS, text, 0),
            (Err(NoInstant::Syntax), Some(Notation::Bsd)) => {
                bsd(text, local.unwrap_or(0), self.ingest_us)
            }
            (read, _) => read,
        }
    }
}

/// Refuses a format that gives no instant: it is tried on a time that it wrote itself.
fn check(format: &str) -> Result<(), Unusable> {
    let unknown = |source| Unusable::TimeFormat { format: format.to_owned(), source };
    let day = civil::date(2026, 11, 23);
    let sample = day.at(23, 24, 4, 123_456_000).to_zoned(TimeZone::UTC).map_err(unknown)?;
    let written = jiff::fmt::strtime::format(format, &sample).map_err(unknown)?;
    let same_day = |micros: i64| {
        let read = jiff::Timestamp::from_microsecond(micros);
        read.is_ok_and(|read| read.to_zoned(TimeZone::UTC).date() == day)
    };
    match by_format(format, &written, 0) {
        Ok(micros) if same_day(micros) => Ok(()),
        _ => Err(Unusable::NoDay { format: format.to_owned(), written }),
    }
}

fn by_format(format: &str, text: &str, local: i64) -> Result<i64, NoInstant> {
    let parts = BrokenDownTime::parse(format, text).map_err(|_| NoInstant::Syntax)?;
    if let Ok(timestamp) = parts.to_timestamp() {
        return Ok(timestamp.as_microsecond());
    }
    let date_time = parts.to_datetime().map_err(|_| NoInstant::Range)?;
    Ok(instant::utc_micros(date_time)? - local * MICROS)
}

/// A time without a year: that of the year in which it is nearest to the time of ingest.
fn bsd(text: &str, local: i64, ingest_us: i64) -> Result<i64, NoInstant> {
    let parts = BrokenDownTime::parse(BSD, text).map_err(|_| NoInstant::Syntax)?;
    let (Some(month), Some(day)) = (parts.month(), parts.day()) else {
        return Err(NoInstant::Syntax);
    };
    let (hour, minute) = (parts.hour().unwrap_or(0), parts.minute().unwrap_or(0));
    let time = civil::Time::new(hour, minute, parts.second().unwrap_or(0), 0)
        .map_err(|_| NoInstant::Range)?;
    let ingest = jiff::Timestamp::from_microsecond(ingest_us).map_err(|_| NoInstant::Range)?;
    let year = ingest.to_zoned(TimeZone::UTC).year();
    let of_year = |year: i16| {
        let date = civil::Date::new(year, month, day).ok()?;
        Some(instant::utc_micros(date.to_datetime(time)).ok()? - local * MICROS)
    };
    // The 29th of February is in some of these years only.
    (year.saturating_sub(4)..=year.saturating_add(4))
        .filter_map(of_year)
        .min_by_key(|micros| micros.abs_diff(ingest_us))
        .ok_or(NoInstant::Range)
}
