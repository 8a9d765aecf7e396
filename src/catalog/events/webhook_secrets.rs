//! The secrets that messages to webhooks are signed with: encrypted in their rows wherever there is a key.

use crate::{
    catalog::{Catalog, Error},
    db::{self, Database, events::webhooks},
    domain::WebhookId,
    secret_keys::{self, SecretKeys},
};

/// Rows that are read, and changed in one transaction.
const BATCH: u64 = 20;

/// How the secrets of webhooks are stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecretState {
    /// Secrets in all.
    pub count: u64,
    /// Webhooks whose secret is not encrypted.
    pub plain: Vec<WebhookId>,
    /// Webhooks whose secret no key opens.
    pub locked: Vec<WebhookId>,
}

impl Catalog {
    /// Returns `secret` as it is stored for this webhook.
    ///
    /// # Errors
    /// [`Error::NotConfigured`] if there is no key.
    pub(super) fn seal_new_secret(&self, id: WebhookId, secret: &str) -> Result<String, Error> {
        let keys = self.secret_keys().ok_or(Error::NotConfigured(
            "webhook secrets cannot be encrypted: set PM_SECRET_KEY to 32 characters or more, the same for every process",
        ))?;
        Ok(keys.encrypt(&place(id), secret))
    }

    /// Returns the secret of a webhook by what is stored of it.
    ///
    /// # Errors
    /// A sentence if no key opens it.
    pub(super) fn open_secret(&self, id: WebhookId, stored: &str) -> Result<String, String> {
        open(self.secret_keys(), id, stored)
            .map_err(|error| format!("the secret of webhook {id} cannot be read: {error}"))
    }

    /// Encrypts every webhook's secret that is not encrypted, or is with another key than the first.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn encrypt_secrets(&self) -> Result<u64, Error> {
        match self.secret_keys() {
            Some(keys) => Ok(encrypt_secrets(self.database(), keys).await?),
            None => Ok(0),
        }
    }

    /// Whether there is a key that encrypts secrets.
    pub fn encrypts_secrets(&self) -> bool {
        self.secret_keys().is_some()
    }

    /// Returns how the secrets of webhooks are stored.
    ///
    /// # Errors
    /// If the database does not answer.
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

/// Encrypts every webhook's secret that is not encrypted with the first of `keys`, a few in each transaction; returns how many.
/// A secret that no key opens stays as it is.
///
/// # Errors
/// If the database does not answer; what was encrypted so far stays.
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

/// Returns `secret` as it is stored for this webhook: encrypted where there is a key.
pub(crate) fn seal(keys: Option<&SecretKeys>, id: WebhookId, secret: String) -> String {
    match keys {
        Some(keys) if !secret_keys::is_encrypted(&secret) => keys.encrypt(&place(id), &secret),
        _ => secret,
    }
}

/// Returns the secret of a webhook by what is stored of it. One of an earlier version is not encrypted.
pub(crate) fn open(keys: Option<&SecretKeys>, id: WebhookId, stored: &str) -> Result<String, secret_keys::Error> {
    match keys {
        _ if !secret_keys::is_encrypted(stored) => Ok(stored.to_owned()),
        Some(keys) => keys.decrypt(&place(id), stored),
        None => Err(secret_keys::without_keys(stored)),
    }
}

/// Where the secret stands: it opens there only.
fn place(id: WebhookId) -> String {
    format!("webhooks.secret {}", id.0)
}
