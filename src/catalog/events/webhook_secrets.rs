//! Signing secrets of webhooks, encrypted in the database if `PM_SECRET_KEY` is set.

use crate::{
    catalog::{Catalog, Error},
    db::{self, Database, events::webhooks},
    domain::WebhookId,
    secret_keys::{self, SecretKeys},
};

/// Rows per transaction.
const BATCH: u64 = 20;

/// How the secrets of webhooks are stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecretState {
    /// Number of secrets.
    pub count: u64,
    /// Webhooks with an unencrypted secret.
    pub plain: Vec<WebhookId>,
    /// Webhooks with a secret that no key decrypts.
    pub locked: Vec<WebhookId>,
}

impl Catalog {
    /// Encrypts a new secret of this webhook.
    ///
    /// # Errors
    /// [`Error::NotConfigured`] if there is no key.
    pub(super) fn seal_new_secret(&self, id: WebhookId, secret: &str) -> Result<String, Error> {
        Ok(self.ensure_secret_keys()?.encrypt(&place(id), secret))
    }

    /// Returns the keys that encrypt webhook secrets.
    ///
    /// # Errors
    /// [`Error::NotConfigured`] if there is no key.
    pub(crate) fn ensure_secret_keys(&self) -> Result<&SecretKeys, Error> {
        self.secret_keys().ok_or(Error::NotConfigured(
            "webhook secrets need an encryption key: set PM_SECRET_KEY to at least 32 characters in every process",
        ))
    }

    /// Decrypts the stored secret of a webhook.
    ///
    /// # Errors
    /// A message if no key decrypts it.
    pub(super) fn open_secret(&self, id: WebhookId, stored: &str) -> Result<String, String> {
        open(self.secret_keys(), id, stored)
            .map_err(|error| format!("the secret of webhook {id} cannot be decrypted: {error}"))
    }

    /// Encrypts all webhook secrets with the first key; returns how many changed.
    pub async fn encrypt_secrets(&self) -> Result<u64, Error> {
        match self.secret_keys() {
            Some(keys) => Ok(encrypt_secrets(self.database(), keys).await?),
            None => Ok(0),
        }
    }

    /// Whether an encryption key is set.
    pub fn encrypts_secrets(&self) -> bool {
        self.secret_keys().is_some()
    }

    /// Returns how the secrets of webhooks are stored.
    pub async fn secret_state(&self) -> Result<SecretState, Error> {
        let (mut state, mut after) = (SecretState::default(), WebhookId(0));
        loop {
            let rows = webhooks::secrets_after(&self.database().read(), after, BATCH).await?;
            let Some((last, _)) = rows.last() else { return Ok(state) };
            after = *last;
            state.count += rows.len() as u64;
            for (id, stored) in rows {
                if !secret_keys::is_encrypted(&stored) {
                    state.plain.push(id);
                } else if open(self.secret_keys(), id, &stored).is_err() {
                    state.locked.push(id);
                }
            }
        }
    }

    pub(crate) fn secret_keys(&self) -> Option<&SecretKeys> {
        self.0.config.secret_keys.as_ref()
    }
}

/// Encrypts all webhook secrets with the first of `keys`, in batches; returns how many changed.
///
/// A secret that no key decrypts stays as it is. After an error, the batches so far stay encrypted.
pub async fn encrypt_secrets(database: &Database, keys: &SecretKeys) -> Result<u64, db::Error> {
    let (mut encrypted, mut after) = (0, WebhookId(0));
    loop {
        let rows = webhooks::secrets_after(&database.read(), after, BATCH).await?;
        let Some((last, _)) = rows.last() else { break };
        after = *last;
        let due: Vec<_> = rows.into_iter().filter(|(_, stored)| !keys.is_current(stored)).collect();
        if due.is_empty() {
            continue;
        }
        let write = database.begin().await?;
        for (id, stored) in due {
            let Ok(secret) = open(Some(keys), id, &stored) else { continue };
            let sealed = keys.encrypt(&place(id), &secret);
            encrypted += u64::from(webhooks::replace_secret(&*write, id, &stored, &sealed).await?);
        }
        write.commit().await?;
    }
    if encrypted > 0 {
        tracing::info!(encrypted, "encrypted {encrypted} webhook secrets with the first key of PM_SECRET_KEY");
    }
    Ok(encrypted)
}

/// Encrypts `secret` for this webhook if there is a key.
pub(crate) fn seal(keys: Option<&SecretKeys>, id: WebhookId, secret: String) -> String {
    match keys {
        Some(keys) if !secret_keys::is_encrypted(&secret) => keys.encrypt(&place(id), &secret),
        _ => secret,
    }
}

/// Decrypts the stored secret of a webhook. Earlier versions stored secrets unencrypted.
pub(crate) fn open(keys: Option<&SecretKeys>, id: WebhookId, stored: &str) -> Result<String, secret_keys::Error> {
    match keys {
        _ if !secret_keys::is_encrypted(stored) => Ok(stored.to_owned()),
        Some(keys) => keys.decrypt(&place(id), stored),
        None => Err(secret_keys::without_keys(stored)),
    }
}

/// Returns the associated data that binds a ciphertext to its webhook.
fn place(id: WebhookId) -> String {
    format!("webhooks.secret {}", id.0)
}
