//! API keys: creating, listing, revoking and validating them.

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

/// Lifetime of a cached key. Other processes may accept a revoked key for this long.
const KEY_LIFETIME: Duration = Duration::from_secs(5);
const MAX_CACHED_KEYS: u64 = 10_000;
/// Minimum time between updates of a key's `last_used_at`.
const USE_UPDATE_INTERVAL: Duration = Duration::from_secs(600);

/// Cached look-ups of keys by hash; `None` if there is no such key.
#[derive(Debug)]
pub(in crate::catalog) struct Known(Cache<String, Option<Arc<Seen>>>);

/// A key and the database's time of its look-up.
#[derive(Debug)]
struct Seen {
    key: Arc<ApiKey>,
    at: Timestamp,
    since: Instant,
}

impl Seen {
    /// Returns the key if it is valid now, by the database's time and the monotonic clock.
    fn valid(&self) -> Option<Arc<ApiKey>> {
        self.key.is_valid(self.at.plus(self.since.elapsed())).then(|| self.key.clone())
    }
}

impl Default for Known {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(MAX_CACHED_KEYS).time_to_live(KEY_LIFETIME).build())
    }
}

impl Catalog {
    /// Creates a key; returns it with its text, which is never returned again.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the user does not exist and unknown users are not created.
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
            return Err(Invalid::field("user_id", format!("user {} not found", new.user_id)).into());
        }
        let key = api_keys::insert(&*write, &new, &text, now).await?;
        write.commit().await?;
        Ok((key, text))
    }

    /// Returns all keys, including revoked and expired ones.
    pub async fn api_keys(&self) -> Result<Vec<ApiKey>, Error> {
        Ok(api_keys::list(&self.database().read()).await?)
    }

    /// Revokes a key. Every process rejects it within 5 s.
    ///
    /// # Errors
    /// [`Error::NotFound`] if it does not exist.
    pub async fn revoke_api_key(&self, id: ApiKeyId) -> Result<(), Error> {
        let write = self.database().begin().await?;
        if !api_keys::revoke(&*write, id, write.now().await?).await? {
            return Err(Error::not_found(format_args!("API key {id}")));
        }
        write.commit().await?;
        self.0.api_keys.0.invalidate_all();
        Ok(())
    }

    /// Returns the cached look-up of a key: the key if it is valid now.
    ///
    /// The outer `None` means that the key is not cached; call [`Catalog::valid_api_key`].
    pub fn remembered_api_key(&self, text: &KeyText) -> Option<Option<Arc<ApiKey>>> {
        Some(self.0.api_keys.0.get(&text.hash())?.and_then(|seen| seen.valid()))
    }

    /// Returns the key with this text if it is valid now.
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

    /// Updates `last_used_at` of a key in the background, so that the request neither waits for it nor fails with it.
    fn note_use(&self, key: &ApiKey, now: Timestamp) {
        if key.last_used_at.is_some_and(|used| now.since(used) < USE_UPDATE_INTERVAL) {
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
                tracing::warn!(%error, "last_used_at of an API key could not be updated");
            }
        });
    }
}
