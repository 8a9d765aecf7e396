//! Limits the queued jobs of each user.

use std::{collections::HashMap, time::Duration};

use moka::sync::Cache;

use crate::{
    catalog::{Catalog, Error},
    db::{Write, jobs},
    domain::UserId,
};

/// Lifetime of a cached count. Jobs that this process queues in that time are added to it.
const COUNT_LIFETIME: Duration = Duration::from_secs(1);
const MAX_COUNTED: u64 = 10_000;

/// Cached numbers of queued jobs by user.
#[derive(Debug)]
pub(in crate::catalog) struct Waiting(Cache<UserId, u64>);

impl Default for Waiting {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(MAX_COUNTED).time_to_live(COUNT_LIFETIME).build())
    }
}

impl Catalog {
    /// Checks that no user exceeds the limit of queued jobs, and counts the new ones.
    ///
    /// `owners` has one entry for each image to be queued.
    pub(in crate::catalog) async fn ensure_backlog(
        &self,
        write: &Write,
        owners: impl IntoIterator<Item = &UserId>,
    ) -> Result<(), Error> {
        for (user_id, waiting) in self.check_backlog(write, owners).await? {
            self.0.waiting.0.insert(user_id, waiting);
        }
        Ok(())
    }

    /// Checks that no user exceeds the limit of queued jobs; returns the new number by user.
    pub(in crate::catalog) async fn check_backlog(
        &self,
        write: &Write,
        owners: impl IntoIterator<Item = &UserId>,
    ) -> Result<Vec<(UserId, u64)>, Error> {
        let Some(most) = self.0.config.max_waiting_jobs_per_user else { return Ok(Vec::new()) };
        let mut added: HashMap<&UserId, u64> = HashMap::new();
        for owner in owners {
            *added.entry(owner).or_default() += 1;
        }
        let mut totals = Vec::with_capacity(added.len());
        for (user_id, added) in added {
            let waiting = match self.0.waiting.0.get(user_id) {
                Some(waiting) => waiting,
                None => jobs::waiting_for(&**write, user_id, most).await?,
            };
            if waiting + added > most {
                return Err(Error::Backlog { user_id: user_id.clone(), waiting, most });
            }
            totals.push((user_id.clone(), waiting + added));
        }
        Ok(totals)
    }
}
