//! Load of a worker: running jobs per user and downloads per host.
//!
//! No user gets all slots, and no host occupies more than a few of them.

use std::{collections::HashMap, sync::Arc};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use crate::domain::{AtCapacity, Job, UserId};

/// Load of a worker; cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Load(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    jobs_per_user: usize,
    downloads_per_host: usize,
    table: Mutex<Table>,
    /// User of the last claim. The lock makes claims sequential, so each sees the load of those before it.
    claiming: tokio::sync::Mutex<Option<UserId>>,
    lighter: Notify,
}

#[derive(Debug, Default)]
struct Table {
    users: HashMap<String, usize>,
    hosts: HashMap<String, usize>,
}

/// Load of one job; dropping it removes the load.
#[derive(Debug)]
pub(super) struct Share {
    load: Load,
    user: Option<String>,
    host: Mutex<Option<String>>,
}

/// Exclusive permission to claim a job.
#[derive(Debug)]
pub(super) struct Claiming<'a> {
    load: &'a Load,
    last: tokio::sync::MutexGuard<'a, Option<UserId>>,
}

impl Load {
    /// Creates the load of a worker with `slots` slots. One user gets at most three quarters of them.
    pub(super) fn new(slots: usize, downloads_per_host: usize) -> Self {
        Self(Arc::new(Shared {
            jobs_per_user: slots.saturating_sub(slots.div_ceil(4)).max(1),
            downloads_per_host: downloads_per_host.max(1),
            table: Mutex::default(),
            claiming: tokio::sync::Mutex::default(),
            lighter: Notify::new(),
        }))
    }

    /// Waits for exclusive permission to claim a job.
    pub(super) async fn claiming(&self) -> Claiming<'_> {
        Claiming { load: self, last: self.0.claiming.lock().await }
    }

    /// Waits until the load has decreased since the last call.
    pub(super) async fn lighter(&self) {
        self.0.lighter.notified().await;
    }

    fn at_capacity(&self) -> AtCapacity {
        let table = self.table();
        let full = |counts: &HashMap<String, usize>, most: usize| {
            counts.iter().filter(|(_, count)| **count >= most).map(|(name, _)| name.clone()).collect()
        };
        AtCapacity {
            users: full(&table.users, self.0.jobs_per_user),
            hosts: full(&table.hosts, self.0.downloads_per_host),
        }
    }

    /// A panic cannot leave the table inconsistent.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock()
    }
}

impl Claiming<'_> {
    /// Returns the user of the last claimed job.
    pub(super) fn last(&self) -> Option<UserId> {
        self.last.clone()
    }

    /// Returns users and hosts that are at their limit.
    pub(super) fn at_capacity(&self) -> AtCapacity {
        self.load.at_capacity()
    }

    /// Adds a job to the load.
    pub(super) fn add(mut self, job: &Job) -> Share {
        self.last.clone_from(&job.user_id);
        let user = job.user_id.as_ref().map(|user| user.as_str().to_owned());
        let host = job.host.clone();
        let mut table = self.load.table();
        if let Some(user) = &user {
            *table.users.entry(user.clone()).or_default() += 1;
        }
        if let Some(host) = &host {
            *table.hosts.entry(host.clone()).or_default() += 1;
        }
        drop(table);
        Share { load: self.load.clone(), user, host: Mutex::new(host) }
    }
}

impl Share {
    /// Ends the job's download, whether it succeeded or not.
    pub(super) fn downloaded(&self) {
        let host = self.host.lock().take();
        if let Some(host) = host {
            give_back(&mut self.load.table().hosts, &host);
            self.load.0.lighter.notify_one();
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.downloaded();
        if let Some(user) = &self.user {
            give_back(&mut self.load.table().users, user);
            self.load.0.lighter.notify_one();
        }
    }
}

fn give_back(counts: &mut HashMap<String, usize>, name: &str) {
    if let Some(count) = counts.get_mut(name) {
        *count -= 1;
        if *count == 0 {
            counts.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::Timestamp,
        domain::{ImageId, JobId, JobPayload},
    };

    fn job(user: &str, host: Option<&str>) -> Job {
        Job {
            id: JobId(1),
            image_id: ImageId(1),
            payload: JobPayload::process_image(None),
            attempt: 1,
            lost: 0,
            lease_token: String::new(),
            request_id: None,
            created_at: Timestamp(0),
            user_id: Some(UserId::stored(user.into())),
            host: host.map(str::to_owned),
        }
    }

    #[tokio::test]
    async fn a_user_gets_at_most_three_quarters_of_the_slots() {
        let load = Load::new(4, 9);
        let mut shares = Vec::new();
        for _ in 0..3 {
            assert!(load.at_capacity().users.is_empty());
            shares.push(load.claiming().await.add(&job("u", None)));
        }
        assert_eq!(load.at_capacity().users, ["u"]);
        drop(shares);
        load.lighter().await;
        assert_eq!(load.at_capacity(), AtCapacity::default());
        assert_eq!(load.claiming().await.last(), Some(UserId::stored("u".into())));
    }

    #[tokio::test]
    async fn a_host_is_at_capacity_until_its_downloads_end() {
        let load = Load::new(8, 2);
        let first = load.claiming().await.add(&job("u", Some("a.example")));
        let second = load.claiming().await.add(&job("v", Some("a.example")));
        assert_eq!(load.at_capacity().hosts, ["a.example"]);
        first.downloaded();
        first.downloaded();
        assert!(load.at_capacity().hosts.is_empty());
        drop((first, second));
        assert!(load.table().hosts.is_empty());
    }
}
