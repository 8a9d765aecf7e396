//! Secrets of an installation: webhook secrets, API key hashes and keys that sign variant URLs.
//!
//! The table files of a backup contain no secrets. They are in one file in the age format, encrypted with a passphrase,
//! or left out.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::Error;
use crate::{
    catalog::events::{webhook_secrets, webhooks::make_secret},
    clock::Timestamp,
    db::maintenance::transfer::Row,
    domain::WebhookId,
    passphrase::Passphrase,
    secret::Secret,
    secret_keys::SecretKeys,
};

/// What a backup does with secrets.
#[derive(Clone, Debug)]
pub enum Protection {
    /// Encrypts them.
    Encrypted {
        /// The passphrase.
        passphrase: Passphrase,
        /// Keys that sign variant URLs, separated by commas.
        url_keys: Secret<Option<String>>,
    },
    /// Leaves them out.
    LeftOut,
}

/// What a restore does with API keys. The author of a backup may have added a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiKeys {
    /// Restores them.
    Restore,
    /// Restores them as revoked.
    LeaveOut,
}

/// What a restore does with secrets.
#[derive(Clone, Copy, Debug)]
pub struct Restoring<'a> {
    /// The secrets of the backup. Without them, webhooks are disabled and API keys revoked.
    pub secrets: Option<&'a Secrets>,
    /// Whether API keys are restored.
    pub api_keys: ApiKeys,
}

/// Unencrypted secrets, in memory only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secrets {
    /// Keys that sign variant URLs, separated by commas.
    #[serde(default, serialize_with = "Secret::serialize_revealed")]
    pub url_keys: Secret<Option<String>>,
    /// Webhook secrets by webhook id.
    #[serde(default, serialize_with = "Secret::serialize_revealed")]
    webhooks: Secret<BTreeMap<i64, String>>,
    /// API key hashes by key id.
    #[serde(default, serialize_with = "Secret::serialize_revealed")]
    api_keys: Secret<BTreeMap<i64, String>>,
}

const WEBHOOKS: &str = "webhooks";
const API_KEYS: &str = "api_keys";

impl Secrets {
    /// Moves the secret of a row into this collection.
    pub(super) fn take(&mut self, table: &str, row: &mut Row) {
        let (column, kept) = match table {
            WEBHOOKS => ("secret", self.webhooks.reveal_mut()),
            API_KEYS => ("hash", self.api_keys.reveal_mut()),
            _ => return,
        };
        if let (Some(id), Some(Value::String(secret))) = (row.get("id").and_then(Value::as_i64), row.remove(column)) {
            kept.insert(id, secret);
        }
    }

    /// Decrypts webhook secrets, so that the passphrase of the backup is sufficient to restore them.
    ///
    /// A secret that no key decrypts stays encrypted.
    pub(super) fn open_webhooks(&mut self, keys: Option<&SecretKeys>) {
        for (id, stored) in self.webhooks.reveal_mut() {
            if let Ok(secret) = webhook_secrets::open(keys, WebhookId(*id), stored) {
                *stored = secret;
            }
        }
    }

    pub(super) async fn encrypted(&self, passphrase: Passphrase) -> Result<Vec<u8>, Error> {
        let plain = serde_json::to_vec(self).map_err(crate::catalog::Error::internal)?;
        let work = tokio::task::spawn_blocking(move || passphrase.encrypt(&plain));
        let file = work.await.map_err(crate::catalog::Error::internal)?;
        Ok(file.map_err(crate::catalog::Error::internal)?)
    }

    pub(super) async fn decrypted(file: Vec<u8>, passphrase: Passphrase) -> Result<Self, Error> {
        let work = tokio::task::spawn_blocking(move || passphrase.decrypt(&file));
        let plain = work.await.map_err(crate::catalog::Error::internal)?.map_err(|error| {
            let reason = format!("the secrets of the backup cannot be decrypted: {error}");
            Error::refused(reason, "pass the passphrase of the backup, or --without-secrets; nothing was changed")
        })?;
        Ok(serde_json::from_slice(&plain).map_err(crate::catalog::Error::internal)?)
    }
}

impl Restoring<'_> {
    /// Restores the secret of a row; returns `false` if it is a valid API key that is left out.
    ///
    /// A webhook without its secret is disabled and gets a new, unknown secret. An API key that is left out is revoked.
    pub(super) fn put_back(&self, keys: Option<&SecretKeys>, table: &str, row: &mut Row, now: Timestamp) -> bool {
        match table {
            WEBHOOKS => self.put_back_webhook(keys, row),
            API_KEYS => return self.put_back_api_key(row, now),
            _ => {}
        }
        true
    }

    fn put_back_webhook(&self, keys: Option<&SecretKeys>, row: &mut Row) {
        let id = number(row);
        // A backup of the first format has the secret in the row.
        let own = row.get("secret").and_then(Value::as_str).map(str::to_owned);
        let known = own.or_else(|| self.secrets.and_then(|secrets| secrets.webhooks.reveal().get(&id)).cloned());
        if known.is_none() {
            row.insert("enabled".into(), 0.into());
            let reason = "it was restored without its secret: delete it and add it again";
            row.insert("disabled_reason".into(), reason.into());
        }
        let secret = known.unwrap_or_else(make_secret);
        row.insert("secret".into(), webhook_secrets::seal(keys, WebhookId(id), secret).into());
    }

    fn put_back_api_key(&self, row: &mut Row, now: Timestamp) -> bool {
        let id = number(row);
        let own = row.get("hash").and_then(Value::as_str).map(str::to_owned);
        let known = own.or_else(|| self.secrets.and_then(|secrets| secrets.api_keys.reveal().get(&id)).cloned());
        let known = known.filter(|_| self.api_keys == ApiKeys::Restore);
        let was_good = row.get("revoked_at").is_none_or(Value::is_null);
        let is_left_out = known.is_none() && was_good;
        if is_left_out {
            row.insert("revoked_at".into(), now.0.into());
        }
        let unusable = || format!("not restored {}", Uuid::new_v4().simple());
        row.insert("hash".into(), known.unwrap_or_else(unusable).into());
        !is_left_out
    }
}

fn number(row: &Row) -> i64 {
    row.get("id").and_then(Value::as_i64).unwrap_or_default()
}
