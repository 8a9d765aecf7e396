//! What the program has acknowledged, written down by its client, and whether all of it is there at the end.

use std::{
    collections::HashSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::Value;

use crate::{
    api::{Answer, Api, product},
    stage::Stage,
};

/// The client's book: each answer to a write.
#[derive(Debug, Default)]
pub struct Ledger {
    entries: Mutex<Vec<Entry>>,
    tally: Mutex<Tally>,
}

/// One acknowledged product.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its number.
    pub id: i64,
    /// The body of the answer.
    pub body: Value,
}

/// How many requests ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Acknowledged by 201.
    pub acknowledged: u64,
    /// Refused by an answer that says so.
    pub refused: u64,
    /// Without an answer: whether it was done is not known.
    pub unanswered: u64,
}

/// What of the ledger is not as it was acknowledged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// Acknowledged and not there.
    pub missing: Vec<i64>,
    /// There, but not as acknowledged.
    pub changed: Vec<i64>,
    /// Names that stand for more than one product, though each was sent once.
    pub duplicates: Vec<String>,
}

impl Ledger {
    /// Sends a product of this name, which must be sent once only, and writes down what comes of it.
    pub async fn create(&self, api: &Api, name: &str, images: &[String]) -> reqwest::Result<Answer> {
        let answer = api.post("/products", &product(name, images)).await;
        let mut tally = lock(&self.tally);
        match &answer {
            Ok(answer) if answer.status == 201 => {
                tally.acknowledged += 1;
                // An answer without a number is found by the audit: nothing has the number 0.
                let id = answer.id().unwrap_or(0);
                lock(&self.entries).push(Entry { id, body: answer.body.clone() });
            }
            Ok(_) => tally.refused += 1,
            Err(_) => tally.unanswered += 1,
        }
        answer
    }

    /// Everything that was acknowledged so far.
    pub fn entries(&self) -> Vec<Entry> {
        lock(&self.entries).clone()
    }

    /// How many requests ended how so far.
    pub fn tally(&self) -> Tally {
        *lock(&self.tally)
    }

    /// Compares every entry with what the API shows now, and looks for names that are there twice.
    ///
    /// # Errors
    /// If the API or the database does not answer.
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
    /// Fails if anything is not as it was acknowledged.
    ///
    /// # Errors
    /// With the numbers and names in question.
    pub fn is_clean(&self) -> anyhow::Result<()> {
        anyhow::ensure!(*self == Self::default(), "acknowledged, but not so any more: {self:?}");
        Ok(())
    }
}

/// Whether what the client gave is what the API shows; what workers add to it may differ.
fn is_same(acknowledged: &Value, shown: &Value) -> bool {
    const GIVEN: [&str; 7] =
        ["id", "user_id", "product_name", "product_description", "product_images", "product_price", "created_at"];
    GIVEN.iter().all(|field| acknowledged[field] == shown[field] && !shown[field].is_null())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
