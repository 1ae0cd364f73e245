//! Records of one meaning in three formats, one in a hundred of them wrong in one of ten ways, and the contracts that read
//! them: the one they break, and the one that is mended.
//!
//! Each record says its number twice: as its `id`, and in its note, where it is found again in what was put aside.

use std::fmt::Write as _;

/// What the records of a stream look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Json,
    Logfmt,
    Csv,
}

/// What is wrong with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Wrong {
    Type,
    Below,
    Above,
    Overflow,
    Missing,
    Unknown,
    Unreadable,
    Ahead,
    Pattern,
    State,
    Cut,
}

impl Wrong {
    const ALL: [Self; 11] = [
        Self::Type,
        Self::Below,
        Self::Above,
        Self::Overflow,
        Self::Missing,
        Self::Unknown,
        Self::Unreadable,
        Self::Ahead,
        Self::Pattern,
        Self::State,
        Self::Cut,
    ];

    /// What is wrong with the record of this number, if anything is.
    pub(super) fn of(source: Source, number: u64) -> Option<Self> {
        let is_bad = number % 100 == 37;
        let wrong = Self::ALL.get((number / 100 % 11) as usize).copied().filter(|_| is_bad);
        // A cell too many is no unknown column.
        wrong.filter(|wrong| *wrong != Self::Unknown || source != Source::Csv)
    }

    /// The name under which it is put aside.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Type => "type",
            Self::Below | Self::Above | Self::Overflow => "range",
            Self::Missing => "missing_value",
            Self::Unknown => "unknown_column",
            Self::Unreadable | Self::Ahead => "event_time",
            Self::Pattern => "pattern",
            Self::State => "not_allowed",
            Self::Cut => "syntax",
        }
    }

    /// Whether a contract could take it.
    pub(super) fn is_mendable(self) -> bool {
        self != Self::Cut
    }
}

impl Source {
    pub(super) const ALL: [Self; 3] = [Self::Json, Self::Logfmt, Self::Csv];

    /// Of the stream, the pipeline and the table.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Logfmt => "logfmt",
            Self::Csv => "csv",
        }
    }

    /// One record as a line.
    pub(super) fn line(self, number: u64) -> String {
        let wrong = Wrong::of(self, number);
        let or = |when: Wrong, bad: &'static str, good: &'static str| {
            if wrong == Some(when) { bad } else { good }
        };
        let ts = match wrong {
            Some(Wrong::Unreadable) => "soon".to_owned(),
            Some(Wrong::Ahead) => "2999-01-01T00:00:00Z".to_owned(),
            _ => format!("2026-01-01T00:00:{:02}Z", number % 60),
        };
        let n = match wrong {
            Some(Wrong::Below) => "-1".to_owned(),
            Some(Wrong::Above) => "1001".to_owned(),
            Some(Wrong::Overflow) => "99999999999".to_owned(),
            _ => (number % 1000).to_string(),
        };
        let code = or(Wrong::Pattern, "kr", "KR");
        let state = or(Wrong::State, "odd", "new");
        let is_missing = wrong == Some(Wrong::Missing);
        let mut line = match self {
            Self::Json => {
                let n = if wrong == Some(Wrong::Type) { "\"seven\"".to_owned() } else { n };
                let state =
                    if is_missing { String::new() } else { format!(",\"state\":\"{state}\"") };
                let more = or(Wrong::Unknown, ",\"more\":1", "");
                format!(
                    "{{\"note\":\"mark-{number}.\",\"head\":{{\"id\":{number},\"ts\":\"{ts}\"}},\"n\":{n},\"code\":\"{code}\"{state}{more}}}"
                )
            }
            Self::Logfmt => {
                let n = if wrong == Some(Wrong::Type) { "seven".to_owned() } else { n };
                let state = if is_missing { String::new() } else { format!(" state={state}") };
                let more = or(Wrong::Unknown, " more=1", "");
                format!(
                    "note=\"mark-{number}.\" id={number} ts={ts} n={n} code={code}{state}{more}"
                )
            }
            Self::Csv => {
                let n = if wrong == Some(Wrong::Type) { "seven".to_owned() } else { n };
                let state = if is_missing { "" } else { state };
                format!("mark-{number}.,{number},{ts},{n},{code},{state}")
            }
        };
        if wrong == Some(Wrong::Cut) {
            // An open end in each of the formats.
            line = match self {
                Self::Json => format!("{{\"note\":\"mark-{number}."),
                Self::Logfmt => format!("note=\"mark-{number}."),
                Self::Csv => format!("\"mark-{number}."),
            };
        }
        line
    }

    /// The contract as TOML; `mended`: it takes all that can be taken.
    pub(super) fn contract(self, mended: bool) -> String {
        let name = self.name();
        let mut text = format!("[stream.{name}.contract]\nformat = \"{name}\"\ntime = \"ts\"\n");
        text += if mended {
            "unknown = \"drop\"\ntime_fallback = \"ingest\"\n"
        } else {
            "unknown = \"quarantine\"\nmax_ahead = \"1h\"\n"
        };
        let from = |pointer: &str| match self {
            Self::Json => format!(", from = \"{pointer}\""),
            _ => String::new(),
        };
        let (n, code, state) = if mended {
            (", on_breach = \"null\"", "", ", default = \"new\"")
        } else {
            (
                ", min = 0, max = 1000",
                ", pattern = \"^[A-Z]{2}$\"",
                ", one_of = [\"new\", \"done\"]",
            )
        };
        // Writing to a String cannot fail.
        write!(
            text,
            "[stream.{name}.contract.columns]\nnote = \"text not null\"\nid = {{ type = \"bigint not null\"{} }}\n\
             ts = {{ type = \"timestamp not null\"{} }}\nn = {{ type = \"int\"{n} }}\ncode = {{ type = \"text\"{code} }}\n\
             state = {{ type = \"text not null\"{state} }}\n\n",
            from("/head/id"),
            from("/head/ts"),
        )
        .unwrap_or_default();
        text
    }
}

/// The number that a record put aside says in its note.
pub(super) fn number(record: &str) -> Option<u64> {
    let (_, rest) = record.split_once("mark-")?;
    rest.split_once('.')?.0.parse().ok()
}
