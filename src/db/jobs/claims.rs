//! Claims jobs fairly: round robin over users, then by due time.
//!
//! One user's backlog does not delay the other users. The cost of a claim does not grow with the backlog.

use std::collections::HashSet;

use sea_orm::{ConnectionTrait, Value};

use crate::{
    clock::Timestamp,
    db::{
        Error,
        jobs::job_of,
        statement::{query, skip_locked},
    },
    domain::{AtCapacity, Job, UserId},
};

/// Users examined per claim. After that, the claim takes the oldest due job of any user.
const MAX_USERS: usize = 64;
/// Jobs per user examined to find one whose host is below its limit.
const MAX_JOBS: u32 = 1_000;
/// Candidate jobs per claim; if another worker claims one first, the next one is tried.
const CANDIDATES: u32 = 16;

/// Condition of a due job: `run_at` has passed, or it was dispatched to a broker.
const IS_DUE: &str = "state = 'queued' AND (run_at <= $3 OR dispatched_at IS NOT NULL)";

/// A new lease.
#[derive(Clone, Debug)]
pub struct NewLease {
    /// The lease token.
    pub token: String,
    /// The time at which the lease ends.
    pub until: Timestamp,
}

/// Result of a claim.
#[derive(Clone, Debug)]
pub enum Next {
    /// This job was claimed.
    Job(Box<Job>),
    /// Jobs are due, but their users or hosts are at their limit.
    AtCapacity,
    /// No job is due.
    Nothing,
}

/// Claims a job of the next user after `after` that is below its limit.
/// Among the user's jobs whose hosts are below their limits, it claims the one that has been due longest.
pub async fn claim_next(
    connection: &impl ConnectionTrait,
    lease: &NewLease,
    now: Timestamp,
    after: Option<&UserId>,
    at_capacity: &AtCapacity,
) -> Result<Next, Error> {
    let mut seen = HashSet::new();
    let mut cursor = after.map_or_else(String::new, |user| user.as_str().to_owned());
    let (mut wrapped, mut any_at_capacity) = (cursor.is_empty(), false);
    while seen.len() < MAX_USERS {
        let Some((user, is_due)) = first_of_user_after(connection, &cursor, now).await? else {
            if wrapped {
                break;
            }
            (wrapped, cursor) = (true, String::new());
            continue;
        };
        if !seen.insert(user.clone()) {
            break;
        }
        if at_capacity.users.contains(&user) {
            any_at_capacity |= is_due;
        } else if is_due {
            match claim_of(connection, lease, now, Some(&user), at_capacity).await? {
                Some(job) => return Ok(Next::Job(Box::new(job))),
                None => any_at_capacity |= !at_capacity.hosts.is_empty(),
            }
        }
        cursor = user;
    }
    // Covers users beyond MAX_USERS and jobs without a user id, which older versions queued.
    match claim_of(connection, lease, now, None, at_capacity).await? {
        Some(job) => Ok(Next::Job(Box::new(job))),
        None if any_at_capacity => Ok(Next::AtCapacity),
        None => Ok(Next::Nothing),
    }
}

/// Claims a due job whose worker crashed.
/// With a broker, the new message of such a job is behind all others.
pub async fn claim_orphan(
    connection: &impl ConnectionTrait,
    lease: &NewLease,
    now: Timestamp,
) -> Result<Option<Job>, Error> {
    let chosen = format!(
        "(SELECT id FROM jobs WHERE state = 'queued' AND attempt > 0 AND error_code IS NULL AND run_at <= $3
          ORDER BY run_at, id LIMIT 1{})",
        skip_locked(connection)
    );
    claim_chosen(connection, &chosen, lease, now, Vec::new()).await
}

/// Returns the first user after `cursor` with a waiting job.
/// Also returns whether that user's first job is due.
async fn first_of_user_after(
    connection: &impl ConnectionTrait,
    cursor: &str,
    now: Timestamp,
) -> Result<Option<(String, bool)>, Error> {
    const FIRST: &str = "SELECT user_id, run_at, dispatched_at FROM jobs WHERE state = 'queued' AND user_id > $1
        ORDER BY user_id, run_at, id LIMIT 1";
    let rows = query(connection, FIRST, vec![cursor.into()]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let due = row.try_get::<i64>("", "run_at")? <= now.0 || row.try_get::<Option<i64>>("", "dispatched_at")?.is_some();
    Ok(Some((row.try_get("", "user_id")?, due)))
}

/// Claims the job that has been due longest.
/// With `user` it considers only this user's jobs, else those of all users below their limits.
async fn claim_of(
    connection: &impl ConnectionTrait,
    lease: &NewLease,
    now: Timestamp,
    user: Option<&str>,
    at_capacity: &AtCapacity,
) -> Result<Option<Job>, Error> {
    let excluded = at_capacity.hosts.len() + if user.is_none() { at_capacity.users.len() } else { 0 };
    let (whose, mut values): (&str, Vec<Value>) = match user {
        Some(user) => ("AND user_id = $4", vec![user.into()]),
        None => ("", Vec::new()),
    };
    let skip = skip_locked(connection);
    if excluded == 0 {
        let chosen = format!("(SELECT id FROM jobs WHERE {IS_DUE} {whose} ORDER BY run_at, id LIMIT 1{skip})");
        return claim_chosen(connection, &chosen, lease, now, values).await;
    }
    let users: &[String] = if user.is_none() { &at_capacity.users } else { &[] };
    let candidates = candidates(connection, now, user, users, &at_capacity.hosts).await?;
    if candidates.is_empty() {
        return Ok(None);
    }
    let ids = candidates.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let chosen =
        format!("(SELECT id FROM jobs WHERE id IN ({ids}) AND {IS_DUE} {whose} ORDER BY run_at, id LIMIT 1{skip})");
    values.truncate(1);
    claim_chosen(connection, &chosen, lease, now, values).await
}

/// Returns the first due jobs without locking them.
/// They belong to `user`, or to any user not in `users`, and their hosts are not in `hosts`.
async fn candidates(
    connection: &impl ConnectionTrait,
    now: Timestamp,
    user: Option<&str>,
    users: &[String],
    hosts: &[String],
) -> Result<Vec<i64>, Error> {
    let mut values: Vec<Value> = vec![now.0.into()];
    let mut place = |value: &str| {
        values.push(value.into());
        format!("${}", values.len())
    };
    let whose = user.map(|user| format!("AND user_id = {}", place(user))).unwrap_or_default();
    let mut conditions = vec!["1 = 1".to_owned()];
    for (column, excluded) in [("user_id", users), ("host", hosts)] {
        if !excluded.is_empty() {
            let places: Vec<_> = excluded.iter().map(|value| place(value)).collect();
            conditions.push(format!("({column} IS NULL OR {column} NOT IN ({}))", places.join(", ")));
        }
    }
    let due = IS_DUE.replace("$3", "$1");
    let sql = format!(
        "SELECT id FROM (SELECT id, user_id, host, run_at FROM jobs WHERE {due} {whose} ORDER BY run_at, id LIMIT {MAX_JOBS})
             AS first_jobs
         WHERE {} ORDER BY run_at, id LIMIT {CANDIDATES}",
        conditions.join(" AND ")
    );
    query(connection, &sql, values).await?.iter().map(|row| Ok(row.try_get("", "id")?)).collect()
}

async fn claim_chosen(
    connection: &impl ConnectionTrait,
    chosen: &str,
    lease: &NewLease,
    now: Timestamp,
    more: Vec<Value>,
) -> Result<Option<Job>, Error> {
    let sql = format!(
        "UPDATE jobs SET state = 'running', attempt = attempt + 1, decoding = 0, working_on = NULL, lease_token = $1,
            lease_until = $2, updated_at = $3
         WHERE id = {chosen}
         RETURNING id, image_id, payload, attempt, lease_token, request_id, created_at, user_id, host"
    );
    let values = [lease.token.as_str().into(), lease.until.0.into(), now.0.into()].into_iter().chain(more).collect();
    query(connection, &sql, values).await?.first().map(job_of).transpose()
}
