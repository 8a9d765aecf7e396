//! Timestamps and the machine's boot clock.

use std::{fmt, io, time::Duration};

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// A timestamp in microseconds since 1970-01-01T00:00:00Z; stored as an integer, shown as RFC 3339.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, utoipa::ToSchema)]
#[schema(value_type = String, format = DateTime, example = "2026-01-31T12:00:00Z")]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Returns this process's wall-clock time, which may be wrong. To compare times of several processes, use the
    /// database's: see `db::Database::now`.
    pub fn now() -> Self {
        Self(i64::try_from(OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000).unwrap_or(i64::MAX))
    }

    /// Returns the timestamp `span` later; saturates.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(span.as_micros()).unwrap_or(i64::MAX)))
    }

    /// Returns the timestamp `span` earlier; saturates.
    #[must_use]
    pub fn minus(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(span.as_micros()).unwrap_or(i64::MAX)))
    }

    /// Returns the time since `earlier`; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Parses an RFC 3339 time.
    pub fn parse(text: &str) -> Option<Self> {
        let moment = OffsetDateTime::parse(text, &Rfc3339).ok()?;
        i64::try_from(moment.unix_timestamp_nanos() / 1_000).ok().map(Self)
    }
}

/// Monotonic clock since the machine's boot. All processes of the machine read the same value, and clock adjustments do
/// not affect it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootClock {
    /// Identifies this boot of the machine and the time namespace.
    pub boot: String,
}

impl BootClock {
    /// If the system has a clock but its boot id cannot be read.
    #[cfg(target_os = "linux")]
    pub fn find() -> io::Result<Option<Self>> {
        let Some(boot) = if_there(std::fs::read_to_string("/proc/sys/kernel/random/boot_id"))? else {
            return Ok(None);
        };
        // Containers in another time namespace have another clock.
        let namespace = if_there(std::fs::read_link("/proc/self/ns/time"))?.unwrap_or_default();
        Ok(Some(Self { boot: format!("{} {}", boot.trim(), namespace.display()) }))
    }

    /// Returns the boot clock; `None` if the system has no clock that processes share.
    ///
    /// # Errors
    /// None here.
    #[cfg(not(target_os = "linux"))]
    pub fn find() -> io::Result<Option<Self>> {
        Ok(None)
    }

    /// Returns microseconds since boot, including sleep.
    #[cfg(target_os = "linux")]
    pub fn micros(&self) -> i64 {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        time.tv_sec * 1_000_000 + time.tv_nsec / 1_000
    }

    /// Never called: this system has no such clock.
    #[cfg(not(target_os = "linux"))]
    pub fn micros(&self) -> i64 {
        Timestamp::now().0
    }
}

/// Maps "not found" and "unsupported" to `None`; other errors stay errors.
#[cfg(target_os = "linux")]
fn if_there<T>(outcome: io::Result<T>) -> io::Result<Option<T>> {
    match outcome {
        Ok(found) => Ok(Some(found)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::Unsupported) => Ok(None),
        Err(error) => Err(error),
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moment = OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000).map_err(|_| fmt::Error)?;
        f.write_str(&moment.format(&Rfc3339).map_err(|_| fmt::Error)?)
    }
}

impl serde::Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn only_a_missing_file_means_that_there_is_no_clock() {
        for missing in [io::ErrorKind::NotFound, io::ErrorKind::Unsupported] {
            assert!(matches!(if_there::<()>(Err(missing.into())), Ok(None)), "{missing}");
        }
        if_there::<()>(Err(io::ErrorKind::PermissionDenied.into())).expect_err("nothing is known of the clock");
        assert!(matches!(BootClock::find(), Ok(Some(_))));
    }

    #[test]
    fn times_are_rfc_3339_in_utc() {
        let moment = Timestamp::parse("2026-01-31T12:00:04+02:00").expect("a valid time");
        assert_eq!(moment.to_string(), "2026-01-31T10:00:04Z");
        assert_eq!(moment.plus(Duration::from_millis(5)).to_string(), "2026-01-31T10:00:04.005Z");
    }
}
