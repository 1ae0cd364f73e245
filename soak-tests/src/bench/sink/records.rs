//! The records of `bench sink`: 8 columns, about 110 bytes as JSON, each key twice.
//!
//! In: a number. Out: the record, as a line for the agent or as values for the bare loop, so that both write the same rows.

use std::io::Write;

/// 2026-11-01T00:00:00Z.
const BEGIN_US: i64 = 1_793_491_200_000_000;

#[derive(Debug, Clone)]
pub(super) struct Record {
    pub(super) id: i64,
    pub(super) version: i64,
    /// Microseconds since 1970.
    pub(super) at_us: i64,
    pub(super) host: String,
    pub(super) level: &'static str,
    pub(super) code: i32,
    pub(super) latency: f64,
    pub(super) cents: i64,
}

/// As the contract declares them.
pub(super) const COLUMNS: &str = "id = \"bigint not null\"\nver = \"bigint not null\"\nat = \"timestamp\"\nhost = \"text\"\n\
lvl = \"text\"\ncode = \"int\"\nms = \"double\"\nsum = \"decimal(10,2)\"\n";

impl Record {
    /// The record of this number among so many; every round has the same keys.
    pub(super) fn new(number: u64, records: u64, round: u64) -> Self {
        let keys = records.div_ceil(2);
        let (level, code) = if number.is_multiple_of(50) { ("error", 500) } else { ("info", 200) };
        let seconds = (number % 28) * 86_400 + 36_000 + number % 3_600;
        Self {
            // A step that shares no factor with the number of keys reaches each of them.
            id: ((number % keys).wrapping_mul(7_919) % keys).cast_signed(),
            version: (round * records + number).cast_signed(),
            at_us: BEGIN_US + (seconds * 1_000_000).cast_signed(),
            host: format!("web-{}", number % 40),
            level,
            code,
            latency: (number % 900) as f64 + 0.25,
            cents: (number % 1_000_000).cast_signed(),
        }
    }

    pub(super) fn write_line(&self, out: &mut impl Write) -> std::io::Result<()> {
        let (day, second) = self.day_and_second();
        writeln!(
            out,
            "{{\"id\":{},\"ver\":{},\"at\":\"2026-11-{day:02}T{:02}:{:02}:{:02}Z\",\"host\":\"{}\",\
             \"lvl\":\"{}\",\"code\":{},\"ms\":{},\"sum\":\"{}\"}}",
            self.id,
            self.version,
            second / 3_600,
            second / 60 % 60,
            second % 60,
            self.host,
            self.level,
            self.code,
            self.latency,
            self.sum(),
        )
    }

    /// The amount, exactly.
    pub(super) fn sum(&self) -> String {
        format!("{}.{:02}", self.cents / 100, self.cents % 100)
    }

    /// Day and time of day with this between them.
    pub(super) fn at(&self, between: char) -> String {
        let (day, second) = self.day_and_second();
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        format!("2026-11-{day:02}{between}{hour:02}:{minute:02}:{second:02}.000000")
    }

    fn day_and_second(&self) -> (i64, i64) {
        let seconds = (self.at_us - BEGIN_US) / 1_000_000;
        (seconds / 86_400 + 1, seconds % 86_400)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::Record;

    #[test]
    fn each_key_comes_twice_and_a_line_is_about_110_bytes() {
        for records in [1_000, 20_000] {
            let mut keys: BTreeMap<i64, u32> = BTreeMap::new();
            let mut bytes = Vec::new();
            for number in 0..records {
                let record = Record::new(number, records, 1);
                *keys.entry(record.id).or_default() += 1;
                record.write_line(&mut bytes).unwrap();
            }
            assert_eq!(keys.len() as u64, records / 2);
            assert!(keys.values().all(|&times| times == 2));
            let mean = bytes.len() as u64 / records;
            assert!((100..120).contains(&mean), "{mean}");
        }
    }
}
