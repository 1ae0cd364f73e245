//! Where MySQL and MariaDB differ. Everything else of this room is the same for both.

/// Which server it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    MySql,
    MariaDb,
}

/// A version as the server says it: `8.4.6`, `10.11.14-MariaDB-log`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(pub(crate) u16, pub(crate) u16, pub(crate) u16);

impl Dialect {
    /// From `@@version`.
    pub(crate) fn of(version: &str) -> (Self, Version) {
        let dialect = if version.contains("MariaDB") { Self::MariaDb } else { Self::MySql };
        let mut numbers = version
            .split(|c: char| !c.is_ascii_digit())
            .map(|number| number.parse::<u16>().unwrap_or(0));
        let mut next = || numbers.next().unwrap_or(0);
        (dialect, Version(next(), next(), next()))
    }

    /// The oldest that has all that is used here: row aliases, collations that see trailing blanks.
    pub(crate) fn oldest(self) -> Version {
        match self {
            Self::MySql => Version(8, 0, 19),
            Self::MariaDb => Version(10, 5, 0),
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::MySql => "MySQL",
            Self::MariaDb => "MariaDB",
        }
    }

    /// The collation under which two texts are equal only when they are the same bytes, blanks at the end included.
    pub(crate) fn exact_collation(self) -> &'static str {
        match self {
            Self::MySql => "utf8mb4_0900_bin",
            Self::MariaDb => "utf8mb4_nopad_bin",
        }
    }

    /// What stands behind the rows of an upsert, so that its assignments can name them.
    pub(crate) fn row_alias(self) -> &'static str {
        match self {
            Self::MySql => " AS n",
            Self::MariaDb => "",
        }
    }

    /// The value that was offered for a column, in an upsert's assignment; `column` is quoted.
    pub(crate) fn offered(self, column: &str) -> String {
        match self {
            Self::MySql => format!("n.{column}"),
            Self::MariaDb => format!("VALUES({column})"),
        }
    }

    /// The most digits behind the point of a decimal.
    pub(crate) fn most_scale(self) -> u8 {
        match self {
            Self::MySql => 30,
            Self::MariaDb => 38,
        }
    }

    /// Session settings by which the server itself ends what takes too long, so that a writer that is paused or cut off lets go
    /// of its locks.
    pub(crate) fn limits(self, seconds: u64) -> String {
        let lock = (seconds / 6).max(1);
        let own = match self {
            // Only SELECTs know a limit here; an idle transaction ends with its connection.
            Self::MySql => {
                format!("max_execution_time = {}, wait_timeout = {seconds}", seconds * 1000)
            }
            Self::MariaDb => {
                format!("max_statement_time = {seconds}, idle_transaction_timeout = {seconds}")
            }
        };
        format!("innodb_lock_wait_timeout = {lock}, {own}")
    }
}

#[cfg(test)]
mod tests {
    use super::{Dialect, Version};

    #[test]
    fn servers_say_who_they_are() {
        let check = |text, dialect, version| assert_eq!(Dialect::of(text), (dialect, version));
        check("8.0.19", Dialect::MySql, Version(8, 0, 19));
        check("9.7.4-debian", Dialect::MySql, Version(9, 7, 4));
        check("10.11.14-MariaDB-0+deb12u2-log", Dialect::MariaDb, Version(10, 11, 14));
        check("5.5.5-10.4.2-MariaDB", Dialect::MariaDb, Version(5, 5, 5));
        check("", Dialect::MySql, Version(0, 0, 0));
    }
}
