//! `pm key`: create, list, revoke. A new key is printed once, to stdout only.

use serde::Serialize;

use super::{
    args,
    failure::{Exit, Failure},
    output::{Console, IdRow, Row, seconds},
    user::flag,
};
use crate::{
    catalog::Catalog,
    clock::Timestamp,
    config::parse_duration,
    domain::{ApiKey, ApiKeyId, KeyText, NewApiKey, Scopes, UserId},
};

/// Runs the command.
pub(super) async fn run(command: args::Key, catalog: &Catalog, console: &mut Console) -> Result<Exit, Failure> {
    match command {
        args::Key::Create { user_id, scopes, expires, name } => {
            let new = parse(&user_id, &scopes, expires.as_deref(), name)?;
            let made = catalog.create_api_key(new).await.map_err(|error| match error {
                crate::catalog::Error::Invalid(invalid) => {
                    Failure::invalid(&invalid, flag).hint("`pm user add --id ID` creates a user")
                }
                other => other.into(),
            });
            let (key, text) = made?;
            console.single(&KeyRow::new(&key, Some(&text)))?;
        }
        args::Key::List => {
            let keys = catalog.api_keys().await?;
            let rows: Vec<_> = keys.iter().map(|key| KeyRow::new(key, None)).collect();
            let mut list = console.list();
            list.page(&rows)?;
            list.finish(None)?;
        }
        args::Key::Revoke { id } => {
            catalog.revoke_api_key(ApiKeyId(id)).await?;
            console.single(&IdRow { id })?;
        }
    }
    Ok(Exit::Done)
}

fn parse(user_id: &str, scopes: &[String], expires: Option<&str>, name: Option<String>) -> Result<NewApiKey, Failure> {
    let wrong = |flag: &'static str| move |reason: String| Failure::new(Exit::Usage, format!("{flag} {reason}"));
    let words = scopes.iter().flat_map(|words| words.split([',', ' '])).filter(|word| !word.is_empty());
    let name_chars = name.as_deref().map_or(1, |name| name.chars().count());
    if !(1..=200).contains(&name_chars) {
        return Err(wrong("--name")("must have 1 to 200 characters".into()));
    }
    Ok(NewApiKey {
        name,
        user_id: UserId::parse(user_id).map_err(wrong("--user-id"))?,
        scopes: Scopes::parse(words).map_err(wrong("--scope"))?,
        lifetime: expires.map(parse_duration).transpose().map_err(wrong("--expires"))?,
    })
}

#[derive(Serialize)]
struct KeyRow<'a> {
    id: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    name: Option<&'a str>,
    prefix: &'a str,
    user_id: &'a UserId,
    scopes: String,
    created_at: Timestamp,
    last_used_at: Option<Timestamp>,
    expires_at: Option<Timestamp>,
    revoked_at: Option<Timestamp>,
}

impl<'a> KeyRow<'a> {
    fn new(key: &'a ApiKey, text: Option<&'a KeyText>) -> Self {
        Self {
            id: key.id.0,
            key: text.map(KeyText::reveal),
            name: key.name.as_deref(),
            prefix: &key.prefix,
            user_id: &key.user_id,
            scopes: key.scopes.to_string(),
            created_at: key.created_at,
            last_used_at: key.last_used_at,
            expires_at: key.expires_at,
            revoked_at: key.revoked_at,
        }
    }

    fn texts(&self, time: impl Fn(Timestamp) -> String) -> Vec<String> {
        let or_empty = |moment: Option<Timestamp>| moment.map(&time).unwrap_or_default();
        vec![
            self.id.to_string(),
            self.name.unwrap_or_default().to_owned(),
            self.key.unwrap_or(self.prefix).to_owned(),
            self.user_id.to_string(),
            self.scopes.clone(),
            time(self.created_at),
            or_empty(self.last_used_at),
            or_empty(self.expires_at),
            or_empty(self.revoked_at),
        ]
    }
}

impl Row for KeyRow<'_> {
    const COLUMNS: &'static [&'static str] =
        &["id", "name", "key", "user", "scopes", "created", "last used", "expires", "revoked"];
    const FIELDS: &'static [&'static str] =
        &["id", "name", "key", "user_id", "scopes", "created_at", "last_used_at", "expires_at", "revoked_at"];

    /// Returns a new key itself, because scripts need it; otherwise the id.
    fn id(&self) -> String {
        self.key.map_or_else(|| self.id.to_string(), str::to_owned)
    }

    fn cells(&self) -> Vec<String> {
        self.texts(seconds)
    }

    fn fields(&self) -> Vec<String> {
        self.texts(|moment| moment.to_string())
    }
}
