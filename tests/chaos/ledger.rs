//! Records what the program acknowledged, and checks that all of it is there at the end.

use std::collections::HashSet;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use parking_lot::{Mutex, MutexGuard};
use serde_json::Value;

use crate::{
    api::{Answer, Api, product},
    stage::Stage,
};

/// The client's record of each answer to a write.
#[derive(Debug, Default)]
pub struct Ledger {
    entries: Mutex<Vec<Entry>>,
    tally: Mutex<Tally>,
}

/// One acknowledged product.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its id.
    pub id: i64,
    /// The body of the answer.
    pub body: Value,
}

/// Number of requests by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Acknowledged with 201.
    pub acknowledged: u64,
    /// Refused with an error response.
    pub refused: u64,
    /// No response: it is unknown whether the write was done.
    pub unanswered: u64,
}

/// Differences between the ledger and the API.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// Acknowledged but missing.
    pub missing: Vec<i64>,
    /// Present, but different from what was acknowledged.
    pub changed: Vec<i64>,
    /// Names that several products have, though each was sent once.
    pub duplicates: Vec<String>,
}

impl Ledger {
    /// Sends a product with this name, once only, and records the outcome.
    pub async fn create(&self, api: &Api, name: &str, images: &[String]) -> reqwest::Result<Answer> {
        let answer = api.post("/products", &product(name, images)).await;
        let mut tally = lock(&self.tally);
        match &answer {
            Ok(answer) if answer.status == 201 => {
                tally.acknowledged += 1;
                // The audit finds an answer without an id: no product has the id 0.
                let id = answer.id().unwrap_or(0);
                lock(&self.entries).push(Entry { id, body: answer.body.clone() });
            }
            Ok(_) => tally.refused += 1,
            Err(_) => tally.unanswered += 1,
        }
        answer
    }

    /// Returns everything acknowledged so far.
    pub fn entries(&self) -> Vec<Entry> {
        lock(&self.entries).clone()
    }

    /// Returns the number of requests by outcome so far.
    pub fn tally(&self) -> Tally {
        *lock(&self.tally)
    }

    /// Compares every entry with the API, and finds names of several products.
    pub async fn audit(&self, stage: &Stage, api: &Api) -> anyhow::Result<Audit> {
        let mut audit = Audit::default();
        let mut seen = HashSet::new();
        let asked = self.entries().into_iter().map(|entry| async move {
            let answer = api.get(&format!("/products/{}", entry.id)).await?;
            anyhow::Ok((entry, answer))
        });
        let mut answers = stream::iter(asked).buffer_unordered(16);
        while let Some((entry, answer)) = answers.try_next().await? {
            match answer.status {
                200 if is_same(&entry.body, &answer.body) && seen.insert(entry.id) => {}
                200 => audit.changed.push(entry.id),
                404 => audit.missing.push(entry.id),
                other => anyhow::bail!("GET /products/{} answers {other}: {}", entry.id, answer.body),
            }
        }
        let twice = "SELECT product_name FROM products GROUP BY product_name HAVING count(*) > 1";
        for row in stage.rows(twice).await? {
            audit.duplicates.push(row.try_get_by_index(0)?);
        }
        Ok(audit)
    }
}

impl Audit {
    /// Returns an error if there is any difference.
    pub fn is_clean(&self) -> anyhow::Result<()> {
        anyhow::ensure!(*self == Self::default(), "acknowledged data are missing or changed: {self:?}");
        Ok(())
    }
}

/// Returns whether the API shows the fields that the client sent; the worker's fields may differ.
fn is_same(acknowledged: &Value, shown: &Value) -> bool {
    const GIVEN: [&str; 7] =
        ["id", "user_id", "product_name", "product_description", "product_images", "product_price", "created_at"];
    GIVEN.iter().all(|field| acknowledged[field] == shown[field] && !shown[field].is_null())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock()
}
