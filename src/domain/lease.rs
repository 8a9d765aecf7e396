//! Detects lost leases of other processes.
//!
//! An observer judges a lease by its changes over the observer's own monotonic clock, and never compares times that two
//! processes wrote. So a wrong or stepped clock cannot take a lease from a worker that is alive.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use crate::clock::Timestamp;

/// Id of a process that claims work: a random number drawn at its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HolderId(pub u64);

impl HolderId {
    /// Flag for a process without a presence lock: nothing proves that it has ended.
    const HIDDEN: u64 = 1 << 63;

    /// Creates an id for a process with a presence lock.
    #[must_use]
    pub const fn visible(self) -> Self {
        Self(self.0 & !Self::HIDDEN)
    }

    /// Creates an id for a process without a presence lock.
    #[must_use]
    pub const fn hidden(self) -> Self {
        Self(self.0 | Self::HIDDEN)
    }

    /// Returns whether the process has no presence lock.
    pub const fn is_hidden(self) -> bool {
        self.0 & Self::HIDDEN != 0
    }

    /// Creates a lease token that contains this id.
    pub fn token(self) -> String {
        format!("{self}-{}", uuid::Uuid::new_v4().simple())
    }

    /// Returns the holder in a token; `None` for a token of an older version.
    pub fn of_token(token: &str) -> Option<Self> {
        let (holder, _) = token.split_once('-')?;
        (holder.len() == 16).then(|| u64::from_str_radix(holder, 16).ok().map(Self)).flatten()
    }
}

impl std::fmt::Display for HolderId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A lease on a job or delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The id of the row.
    pub id: i64,
    /// The lease token.
    pub token: String,
    /// The end of the lease, which grows with each heartbeat. Observers check only whether it changes.
    pub until: Timestamp,
}

impl Lease {
    /// Returns the process that holds the lease.
    pub fn holder(&self) -> Option<HolderId> {
        HolderId::of_token(&self.token)
    }
}

/// A lease to take from its holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lapsed {
    /// The lease as last seen.
    pub lease: Lease,
    /// Whether the holder has ended; otherwise it only sent no heartbeat.
    pub holder_ended: bool,
}

/// How long a lease must be unchanged before it is recovered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseRule {
    /// Time without a change after which a lease is lost in any case.
    pub lease: Duration,
    /// Time without a change after which the holder's presence is checked.
    pub suspicion: Duration,
    /// Time of absence after which a holder counts as ended.
    pub absence: Duration,
}

/// The observations of all leases.
#[derive(Debug, Default)]
pub struct LeaseWatch {
    last_look: Option<Instant>,
    step: Duration,
    seen: BTreeMap<i64, Sighting>,
}

#[derive(Debug)]
struct Sighting {
    lease: Lease,
    unchanged: Duration,
    absent: Duration,
}

/// Maximum time that counts between two observations.
/// An observer that was frozen, or could not query the database, has seen nothing meanwhile.
const MAX_STEP: Duration = Duration::from_secs(3);

impl LeaseWatch {
    /// Records the leases that exist at `at`.
    pub fn observe(&mut self, at: Instant, leases: Vec<Lease>) {
        self.step = self.last_look.map_or(Duration::ZERO, |last| at.saturating_duration_since(last)).min(MAX_STEP);
        self.last_look = Some(at);
        let mut before = std::mem::take(&mut self.seen);
        for lease in leases {
            let sighting = match before.remove(&lease.id) {
                Some(same) if same.lease == lease => Sighting { unchanged: same.unchanged + self.step, ..same },
                _ => Sighting { lease, unchanged: Duration::ZERO, absent: Duration::ZERO },
            };
            self.seen.insert(sighting.lease.id, sighting);
        }
    }

    /// Returns the holders to check for presence before [`LeaseWatch::judge`].
    pub fn suspects(&self, rule: &LeaseRule) -> BTreeSet<HolderId> {
        let suspicious = self.seen.values().filter(|sighting| sighting.unchanged >= rule.suspicion);
        suspicious.filter_map(|sighting| sighting.lease.holder()).collect()
    }

    /// Returns the leases to take now; `absent` are the suspects without a presence lock.
    pub fn judge(&mut self, absent: &BTreeSet<HolderId>, rule: &LeaseRule) -> Vec<Lapsed> {
        let mut lapsed = Vec::new();
        for sighting in self.seen.values_mut() {
            let is_absent = sighting.lease.holder().is_some_and(|holder| absent.contains(&holder));
            let holder_ended = is_absent && sighting.absent >= rule.absence;
            sighting.absent =
                if is_absent { sighting.absent + self.step.max(Duration::from_nanos(1)) } else { Duration::ZERO };
            if holder_ended || sighting.unchanged >= rule.lease {
                lapsed.push(Lapsed { lease: sighting.lease.clone(), holder_ended });
            }
        }
        lapsed
    }

    /// Clears all observations: without an answer from the database no heartbeat could be seen.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: LeaseRule = LeaseRule {
        lease: Duration::from_secs(15),
        suspicion: Duration::from_secs(5),
        absence: Duration::from_secs(5),
    };
    const HOLDER: HolderId = HolderId(7);

    fn lease(until: i64) -> Lease {
        Lease { id: 1, token: format!("{HOLDER}-a"), until: Timestamp(until) }
    }

    /// Observes once a second; returns when the lease lapses, and whether its holder had ended.
    fn lapses_after(watch: &mut LeaseWatch, beats: impl Fn(u64) -> i64, absent: &[HolderId]) -> Option<(u64, bool)> {
        let began = Instant::now();
        (0..60).find_map(|second| {
            watch.observe(began + Duration::from_secs(second), vec![lease(beats(second))]);
            let absent = watch.suspects(&RULE).intersection(&absent.iter().copied().collect()).copied().collect();
            watch.judge(&absent, &RULE).first().map(|lapsed| (second, lapsed.holder_ended))
        })
    }

    #[test]
    fn an_expired_lease_is_kept_while_it_changes() {
        assert_eq!(lapses_after(&mut LeaseWatch::default(), |second| (second / 5).cast_signed(), &[]), None);
    }

    #[test]
    fn a_lease_that_ends_far_ahead_is_lost_after_fifteen_seconds_without_a_heartbeat() {
        assert_eq!(lapses_after(&mut LeaseWatch::default(), |_| i64::MAX, &[]), Some((15, false)));
    }

    #[test]
    fn a_holder_that_ended_loses_its_lease_earlier() {
        assert_eq!(lapses_after(&mut LeaseWatch::default(), |_| 0, &[HOLDER]), Some((10, true)));
        let at_once = LeaseRule { suspicion: Duration::ZERO, absence: Duration::ZERO, ..RULE };
        let mut watch = LeaseWatch::default();
        watch.observe(Instant::now(), vec![lease(0)]);
        assert_eq!(watch.suspects(&at_once), BTreeSet::from([HOLDER]));
        assert!(watch.judge(&BTreeSet::from([HOLDER]), &at_once)[0].holder_ended);
    }

    #[test]
    fn time_without_observations_does_not_count() {
        let mut watch = LeaseWatch::default();
        let began = Instant::now();
        for hours in 0..3 {
            watch.observe(began + Duration::from_secs(hours * 3_600), vec![lease(0)]);
            assert_eq!(watch.judge(&BTreeSet::new(), &RULE), []);
        }
        watch.clear();
        assert_eq!(lapses_after(&mut watch, |_| 0, &[]), Some((15, false)));
    }

    #[test]
    fn a_token_names_its_holder_unless_an_older_version_made_it() {
        assert_eq!(HolderId::of_token(&HOLDER.token()), Some(HOLDER));
        assert_eq!(HolderId::of_token(&uuid::Uuid::new_v4().simple().to_string()), None);
        assert_eq!(HolderId::of_token("7-a"), None);
    }
}
