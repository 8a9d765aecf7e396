//! Leases as a process sees them that looks on. A lease is judged by what the observer saw over its own monotonic clock, never
//! by comparing times that two processes wrote: a wrong or stepped clock takes nothing from a worker that is alive.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use crate::clock::Timestamp;

/// A process that claims work, by the random number that it drew at its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HolderId(pub u64);

impl HolderId {
    /// Set in the number of a process that cannot show that it lives: nothing proves that it has ended.
    const HIDDEN: u64 = 1 << 63;

    /// Returns the number for a process that shows itself.
    #[must_use]
    pub const fn visible(self) -> Self {
        Self(self.0 & !Self::HIDDEN)
    }

    /// Returns the number for a process that cannot show itself.
    #[must_use]
    pub const fn hidden(self) -> Self {
        Self(self.0 | Self::HIDDEN)
    }

    /// Whether the process cannot show that it lives.
    pub const fn is_hidden(self) -> bool {
        self.0 & Self::HIDDEN != 0
    }

    /// A new lease token that names this holder.
    pub fn token(self) -> String {
        format!("{self}-{}", uuid::Uuid::new_v4().simple())
    }

    /// Returns the holder that a token names; `None` for a token of an older version.
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

/// A lease on a row of work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The row.
    pub id: i64,
    /// Proof of the claim.
    pub token: String,
    /// Grows with each heartbeat. Only whether it changes is looked at.
    pub until: Timestamp,
}

impl Lease {
    /// Returns the process that holds it.
    pub fn holder(&self) -> Option<HolderId> {
        HolderId::of_token(&self.token)
    }
}

/// A lease that is to be taken from its holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lapsed {
    /// The lease, as it was seen last.
    pub lease: Lease,
    /// Whether the holder is known to have ended. Otherwise it only gave no sign of life.
    pub holder_ended: bool,
}

/// How long a lease must be seen unchanged before it is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseRule {
    /// A lease that did not change for this long is lost, whatever is known of its holder.
    pub lease: Duration,
    /// A holder is looked up once its lease did not change for this long.
    pub suspicion: Duration,
    /// A holder has ended once it was seen absent for this long.
    pub absence: Duration,
}

/// What an observer has seen of leases.
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

/// A pause between two looks counts as no more than this: an observer that was itself frozen, or could not ask, has seen
/// nothing meanwhile.
const MAX_STEP: Duration = Duration::from_secs(3);

impl LeaseWatch {
    /// Takes in the leases that there are at `at`.
    pub fn look(&mut self, at: Instant, leases: Vec<Lease>) {
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

    /// Returns the holders that must be looked up before [`LeaseWatch::judge`].
    pub fn suspects(&self, rule: &LeaseRule) -> BTreeSet<HolderId> {
        let suspicious = self.seen.values().filter(|sighting| sighting.unchanged >= rule.suspicion);
        suspicious.filter_map(|sighting| sighting.lease.holder()).collect()
    }

    /// Returns the leases to take now, where `absent` are the suspects that were not found.
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

    /// Forgets everything: while the database did not answer, no holder could give a sign of life.
    pub fn forget(&mut self) {
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

    /// Looks once a second; answers after how many seconds the lease is taken, and whether its holder had ended.
    fn taken_after(watch: &mut LeaseWatch, beats: impl Fn(u64) -> i64, absent: &[HolderId]) -> Option<(u64, bool)> {
        let began = Instant::now();
        (0..60).find_map(|second| {
            watch.look(began + Duration::from_secs(second), vec![lease(beats(second))]);
            let absent = watch.suspects(&RULE).intersection(&absent.iter().copied().collect()).copied().collect();
            watch.judge(&absent, &RULE).first().map(|lapsed| (second, lapsed.holder_ended))
        })
    }

    #[test]
    fn a_lease_whose_time_has_passed_is_kept_while_it_changes() {
        assert_eq!(taken_after(&mut LeaseWatch::default(), |second| (second / 5).cast_signed(), &[]), None);
    }

    #[test]
    fn a_lease_that_ends_far_ahead_is_lost_after_fifteen_seconds_without_a_heartbeat() {
        assert_eq!(taken_after(&mut LeaseWatch::default(), |_| i64::MAX, &[]), Some((15, false)));
    }

    #[test]
    fn a_holder_that_ended_loses_its_lease_earlier() {
        assert_eq!(taken_after(&mut LeaseWatch::default(), |_| 0, &[HOLDER]), Some((10, true)));
        let at_once = LeaseRule { suspicion: Duration::ZERO, absence: Duration::ZERO, ..RULE };
        let mut watch = LeaseWatch::default();
        watch.look(Instant::now(), vec![lease(0)]);
        assert_eq!(watch.suspects(&at_once), BTreeSet::from([HOLDER]));
        assert!(watch.judge(&BTreeSet::from([HOLDER]), &at_once)[0].holder_ended);
    }

    #[test]
    fn time_in_which_the_observer_saw_nothing_does_not_count() {
        let mut watch = LeaseWatch::default();
        let began = Instant::now();
        for hours in 0..3 {
            watch.look(began + Duration::from_secs(hours * 3_600), vec![lease(0)]);
            assert_eq!(watch.judge(&BTreeSet::new(), &RULE), []);
        }
        watch.forget();
        assert_eq!(taken_after(&mut watch, |_| 0, &[]), Some((15, false)));
    }

    #[test]
    fn tokens_name_their_holder_and_those_of_older_versions_name_none() {
        assert_eq!(HolderId::of_token(&HOLDER.token()), Some(HOLDER));
        assert_eq!(HolderId::of_token(&uuid::Uuid::new_v4().simple().to_string()), None);
        assert_eq!(HolderId::of_token("7-a"), None);
    }
}
