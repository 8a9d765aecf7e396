//! The secrets of an installation: what webhooks sign with, the hashes of API keys, the keys of signed addresses. They stand in
//! no table file of a backup, but in one file that a passphrase opens, in the age format; or nowhere.

use std::{collections::BTreeMap, fmt};

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
    secret_keys::SecretKeys,
};

/// What a backup does with secrets.
#[derive(Clone, Debug)]
pub enum Protection {
    /// They are encrypted.
    Encrypted {
        /// What opens them.
        passphrase: Passphrase,
        /// The keys of signed addresses, separated by commas.
        url_keys: Option<String>,
    },
    /// They are left out.
    LeftOut,
}

/// What a restore does with API keys. The author of a backup may have added a key to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiKeys {
    /// They are good again.
    Restore,
    /// They come back revoked.
    LeaveOut,
}

/// What a restore does with what is secret.
#[derive(Clone, Copy, Debug)]
pub struct Restoring<'a> {
    /// The secrets of the backup; without them webhooks are disabled and API keys revoked.
    pub secrets: Option<&'a Secrets>,
    /// What becomes of API keys.
    pub api_keys: ApiKeys,
}

/// Secrets in the clear, in memory only.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secrets {
    /// The keys of signed addresses, separated by commas.
    #[serde(default)]
    pub url_keys: Option<String>,
    /// Secrets of webhooks by number.
    #[serde(default)]
    webhooks: BTreeMap<i64, String>,
    /// Hashes of API keys by number.
    #[serde(default)]
    api_keys: BTreeMap<i64, String>,
}

/// Nobody sees them.
impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({} webhooks, {} keys)", self.webhooks.len(), self.api_keys.len())
    }
}

const WEBHOOKS: &str = "webhooks";
const API_KEYS: &str = "api_keys";

impl Secrets {
    /// Takes the secret out of a row.
    pub(super) fn take(&mut self, table: &str, row: &mut Row) {
        let (column, kept) = match table {
            WEBHOOKS => ("secret", &mut self.webhooks),
            API_KEYS => ("hash", &mut self.api_keys),
            _ => return,
        };
        if let (Some(id), Some(Value::String(secret))) = (row.get("id").and_then(Value::as_i64), row.remove(column)) {
            kept.insert(id, secret);
        }
    }

    /// Decrypts the secrets of webhooks, so that the passphrase of the backup alone opens them. One that no key opens stays
    /// encrypted.
    pub(super) fn open_webhooks(&mut self, keys: Option<&SecretKeys>) {
        for (id, stored) in &mut self.webhooks {
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
            let reason = format!("the secrets of the backup cannot be read: {error}");
            Error::refused(reason, "give the passphrase of the backup, or --without-secrets; nothing was changed")
        })?;
        Ok(serde_json::from_slice(&plain).map_err(crate::catalog::Error::internal)?)
    }
}

impl Restoring<'_> {
    /// Puts the secret of a row back; `false` if it was an API key that was good and is left out. Without its secret a webhook
    /// is disabled and gets a new, unknown one. An API key that is left out is revoked.
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
        // A backup of the first format has it in its row.
        let own = row.get("secret").and_then(Value::as_str).map(str::to_owned);
        let known = own.or_else(|| self.secrets.and_then(|secrets| secrets.webhooks.get(&id)).cloned());
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
        let known = own.or_else(|| self.secrets.and_then(|secrets| secrets.api_keys.get(&id)).cloned());
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
