//! API keys: made, listed, taken back, and asked for with each request that shows one.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use moka::sync::Cache;

use crate::{
    catalog::{Catalog, Error},
    clock::Timestamp,
    db::accounts::{api_keys, users},
    domain::{ApiKey, ApiKeyId, Invalid, KeyText, NewApiKey},
};

/// How long a process goes by what it knows of a key: so long a key that was taken back may still be good in another one.
const KNOWN_FOR: Duration = Duration::from_secs(5);
const MOST_KNOWN: u64 = 10_000;
/// The use of a key is noted this often at most.
const NOTED_EVERY: Duration = Duration::from_secs(600);

/// What the process knows of the keys that it was shown, by their hashes; also that there is none.
#[derive(Debug)]
pub(in crate::catalog) struct Known(Cache<String, Option<Arc<Seen>>>);

/// A key as it was at a moment of the database's time.
#[derive(Debug)]
struct Seen {
    key: Arc<ApiKey>,
    at: Timestamp,
    since: Instant,
}

impl Seen {
    /// Returns the key if it may be used now, by the database's time and this process's monotonic clock.
    fn valid(&self) -> Option<Arc<ApiKey>> {
        self.key.is_valid(self.at.plus(self.since.elapsed())).then(|| self.key.clone())
    }
}

impl Default for Known {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(MOST_KNOWN).time_to_live(KNOWN_FOR).build())
    }
}

impl Catalog {
    /// Makes a key; the text is shown to its owner once and cannot be had again.
    ///
    /// # Errors
    /// [`Error::Invalid`] if there is no such user and none is made along.
    pub async fn create_api_key(&self, new: NewApiKey) -> Result<(ApiKey, KeyText), Error> {
        let mut random = [0; 32];
        for half in random.chunks_exact_mut(16) {
            half.copy_from_slice(uuid::Uuid::new_v4().as_bytes());
        }
        let text = KeyText::of(random);
        let write = self.database().begin().await?;
        let now = write.now().await?;
        if self.0.config.auto_users {
            users::ensure(&*write, &new.user_id, now).await?;
        } else if !users::exists(&*write, &new.user_id).await? {
            return Err(Invalid::field("user_id", format!("there is no user {}", new.user_id)).into());
        }
        let key = api_keys::insert(&*write, &new, &text, now).await?;
        write.commit().await?;
        Ok((key, text))
    }

    /// Every key, also those that are worth nothing any more.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn api_keys(&self) -> Result<Vec<ApiKey>, Error> {
        Ok(api_keys::list(&self.database().read()).await?)
    }

    /// Takes a key back. Every process refuses it within 5 s.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none of this number.
    pub async fn revoke_api_key(&self, id: ApiKeyId) -> Result<(), Error> {
        let write = self.database().begin().await?;
        if !api_keys::revoke(&*write, id, write.now().await?).await? {
            return Err(Error::not_found(format_args!("API key {id}")));
        }
        write.commit().await?;
        self.0.api_keys.0.invalidate_all();
        Ok(())
    }

    /// What the process remembers of the key that reads `text`, for a few seconds after it was looked up: the key if it may
    /// be used now. The outer `None` means that the database has to be asked.
    pub fn remembered_api_key(&self, text: &KeyText) -> Option<Option<Arc<ApiKey>>> {
        Some(self.0.api_keys.0.get(&text.hash())?.and_then(|seen| seen.valid()))
    }

    /// The key that reads `text`, if it may be used now.
    ///
    /// # Errors
    /// If the database does not answer and the process does not know the key.
    pub async fn valid_api_key(&self, text: &KeyText) -> Result<Option<Arc<ApiKey>>, Error> {
        let hash = text.hash();
        if let Some(known) = self.0.api_keys.0.get(&hash) {
            return Ok(known.and_then(|seen| seen.valid()));
        }
        let found = match api_keys::find(&self.database().read(), &hash).await? {
            Some(key) => Some(Arc::new(Seen { key: Arc::new(key), at: self.now().await?, since: Instant::now() })),
            None => None,
        };
        self.0.api_keys.0.insert(hash, found.clone());
        let valid = found.and_then(|seen| Some((seen.valid()?, seen.at)));
        Ok(valid.map(|(key, now)| {
            self.note_use(&key, now);
            key
        }))
    }

    /// Notes the use of a key beside the request, which need not wait for it and does not fail with it.
    fn note_use(&self, key: &ApiKey, now: Timestamp) {
        if key.last_used_at.is_some_and(|used| now.since(used) < NOTED_EVERY) {
            return;
        }
        let (catalog, id) = (self.clone(), key.id);
        tokio::spawn(async move {
            let noted = async {
                let write = catalog.database().begin().await?;
                api_keys::note_use(&*write, id, now).await?;
                write.commit().await
            };
            if let Err(error) = noted.await {
                tracing::warn!(%error, "the use of an API key could not be noted");
            }
        });
    }
}
