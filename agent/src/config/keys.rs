//! Errors that name file, key and what to do, and the bounds they speak of.

use std::path::Path;
use std::time::Duration;

use bytesize::ByteSize;

use super::ConfigError;

/// Builds errors that name file and key.
pub(super) struct Keys<'a> {
    pub(super) path: &'a Path,
}

impl Keys<'_> {
    pub(super) fn bad(&self, key: &str, problem: &str, action: &str) -> ConfigError {
        ConfigError::Value {
            path: self.path.into(),
            key: key.into(),
            problem: problem.into(),
            action: action.into(),
        }
    }

    pub(super) fn within<T: PartialOrd + std::fmt::Display>(
        &self,
        key: &str,
        value: T,
        low: T,
        high: T,
    ) -> Result<(), ConfigError> {
        if value < low || value > high {
            let action = format!("choose {low} to {high}");
            return Err(self.bad(key, &format!("{value} is out of bounds"), &action));
        }
        Ok(())
    }

    pub(super) fn size(
        &self,
        key: &str,
        value: ByteSize,
        low: ByteSize,
        high: ByteSize,
    ) -> Result<(), ConfigError> {
        self.within(key, value, low, high)
    }

    pub(super) fn duration(
        &self,
        key: &str,
        value: Duration,
        low: Duration,
        high: Duration,
    ) -> Result<(), ConfigError> {
        if value < low || value > high {
            let action = format!("choose {low:?} to {high:?}");
            return Err(self.bad(key, &format!("{value:?} is out of bounds"), &action));
        }
        Ok(())
    }
}
