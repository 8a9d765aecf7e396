//! The secrets of an installation: what webhooks sign with, the hashes of API keys, the keys of signed addresses. They stand in
//! no table file of a backup, but in one file that a passphrase opens, in the age format; or nowhere.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::Error;
use crate::{
    catalog::{webhook_secrets, webhooks::make_secret},
    clock::Timestamp,
    db::transfer::Row,
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

/// Puts the secret of a row back. Without it a webhook is disabled and signs with a new one, which nobody knows, and an API key
/// is revoked.
pub(super) fn put_back(secrets: Option<&Secrets>, table: &str, row: &mut Row, now: Timestamp) {
    let id = row.get("id").and_then(Value::as_i64).unwrap_or_default();
    match table {
        WEBHOOKS if !row.contains_key("secret") => {
            let known = secrets.and_then(|secrets| secrets.webhooks.get(&id)).cloned();
            if known.is_none() {
                row.insert("enabled".into(), 0.into());
                let reason = "it was restored without its secret: delete it and add it again";
                row.insert("disabled_reason".into(), reason.into());
            }
            row.insert("secret".into(), known.unwrap_or_else(make_secret).into());
        }
        API_KEYS if !row.contains_key("hash") => {
            let known = secrets.and_then(|secrets| secrets.api_keys.get(&id)).cloned();
            if known.is_none() && row.get("revoked_at").is_none_or(Value::is_null) {
                row.insert("revoked_at".into(), now.0.into());
            }
            let unusable = || format!("not restored {}", Uuid::new_v4().simple());
            row.insert("hash".into(), known.unwrap_or_else(unusable).into());
        }
        _ => {}
    }
}
