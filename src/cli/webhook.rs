//! `pm webhook`: manages webhooks and their deliveries.

use std::path::Path;

use serde::{Serialize, Serializer};

use super::{
    args::{self, Paging},
    ask,
    failure::{Exit, Failure},
    output::{Console, Row, seconds},
    user::flag,
};
use crate::{
    api::{DeliveryBody, WebhookBody},
    catalog::Catalog,
    domain::{Delivery, DeliveryId, DeliveryQuery, EventKind, NewWebhook, Webhook, WebhookId},
};

/// Runs the command.
pub(super) async fn run(command: args::Webhook, catalog: &Catalog, console: &mut Console) -> Result<Exit, Failure> {
    match command {
        args::Webhook::Add { url, types, secret, secret_file } => {
            let secret = secret_file.map_or(Ok(secret), |file| read_secret(&file).map(Some))?;
            add(&url, &types, secret, catalog, console).await
        }
        args::Webhook::List => list(catalog, console).await,
        args::Webhook::Get { id } => {
            let webhook = catalog.webhook(WebhookId(id)).await?;
            console.single(&WebhookRow { webhook: &webhook })?;
            Ok(Exit::Done)
        }
        args::Webhook::Delete { id, yes } => {
            let webhook = catalog.webhook(WebhookId(id)).await?;
            ask::confirm(&format!("Delete webhook {id} to {} and its delivery history?", webhook.url), yes).await?;
            catalog.delete_webhook(webhook.id, None).await?;
            console.say(&format!("webhook {id} deleted"));
            Ok(Exit::Done)
        }
        args::Webhook::Enable { id } => {
            let webhook = catalog.enable_webhook(WebhookId(id), None, None).await?.value;
            console.single(&WebhookRow { webhook: &webhook })?;
            Ok(Exit::Done)
        }
        args::Webhook::Deliveries { id, paging } => deliveries(WebhookId(id), &paging, catalog, console).await,
        args::Webhook::Retry { id, delivery } => {
            catalog.retry_delivery(WebhookId(id), DeliveryId(delivery), None).await?;
            console.say(&format!("delivery {delivery} queued"));
            Ok(Exit::Done)
        }
    }
}

fn read_secret(file: &Path) -> Result<String, Failure> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        Failure::because(Exit::Usage, error).context(format!("cannot read the secret from {}", file.display()))
    })?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

async fn add(
    url: &str,
    types: &[String],
    secret: Option<String>,
    catalog: &Catalog,
    console: &mut Console,
) -> Result<Exit, Failure> {
    let new = NewWebhook::checked(url, types, secret, catalog.policy());
    let new = new.map_err(|invalid| Failure::invalid(&invalid, flag))?;
    let (webhook, secret) = catalog.create_webhook(new, None).await?.value;
    console.single(&NewWebhookRow { webhook: &webhook, secret: &secret })?;
    console.say("save the secret: it is not shown again");
    Ok(Exit::Done)
}

async fn list(catalog: &Catalog, console: &mut Console) -> Result<Exit, Failure> {
    let webhooks = catalog.webhooks().await?;
    let rows: Vec<_> = webhooks.iter().map(|webhook| WebhookRow { webhook }).collect();
    let mut list = console.list();
    list.page(&rows)?;
    list.finish(None)?;
    Ok(Exit::Done)
}

async fn deliveries(id: WebhookId, paging: &Paging, catalog: &Catalog, console: &mut Console) -> Result<Exit, Failure> {
    let mut cursor = paging.cursor.clone();
    let mut list = console.list();
    loop {
        let pairs = [("limit", paging.page_size()), ("cursor", cursor.as_deref())];
        let given = pairs.into_iter().filter_map(|(name, value)| value.map(|value| (name, value)));
        let query = DeliveryQuery::parse(given).map_err(|invalid| Failure::invalid(&invalid, flag))?;
        let page = catalog.deliveries(id, query).await?;
        let rows: Vec<_> = page.items.iter().map(|delivery| DeliveryRow { delivery }).collect();
        list.page(&rows)?;
        cursor = page.next_cursor;
        if cursor.is_none() || !paging.all {
            list.finish(cursor.as_deref())?;
            return Ok(Exit::Done);
        }
    }
}

struct WebhookRow<'a> {
    webhook: &'a Webhook,
}

/// Serializes the API's JSON.
impl Serialize for WebhookRow<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        WebhookBody::new(self.webhook).serialize(serializer)
    }
}

impl Row for WebhookRow<'_> {
    const COLUMNS: &'static [&'static str] = &["id", "url", "types", "state", "failing since"];
    const FIELDS: &'static [&'static str] = &["id", "url", "types", "disabled_reason", "failing_since"];

    fn id(&self) -> String {
        self.webhook.id.to_string()
    }

    fn cells(&self) -> Vec<String> {
        let mut cells = self.fields();
        cells[3] = self.webhook.disabled.as_ref().map_or("enabled".into(), |reason| format!("disabled: {reason}"));
        cells[4] = self.webhook.failing_since.map(seconds).unwrap_or_default();
        cells
    }

    fn fields(&self) -> Vec<String> {
        let webhook = self.webhook;
        let kinds: Vec<_> = webhook.kinds.iter().copied().map(EventKind::as_str).collect();
        vec![
            webhook.id.to_string(),
            webhook.url.clone(),
            if kinds.is_empty() { "all".into() } else { kinds.join(" ") },
            webhook.disabled.clone().unwrap_or_default(),
            webhook.failing_since.map(|since| since.to_string()).unwrap_or_default(),
        ]
    }
}

/// A new webhook with its secret.
struct NewWebhookRow<'a> {
    webhook: &'a Webhook,
    secret: &'a str,
}

/// Serializes the API's JSON.
impl Serialize for NewWebhookRow<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        WebhookBody::with_secret(self.webhook, self.secret).serialize(serializer)
    }
}

impl Row for NewWebhookRow<'_> {
    const COLUMNS: &'static [&'static str] = &["id", "url", "types", "state", "failing since", "secret"];
    const FIELDS: &'static [&'static str] = &["id", "url", "types", "disabled_reason", "failing_since", "secret"];

    fn id(&self) -> String {
        self.webhook.id.to_string()
    }

    fn cells(&self) -> Vec<String> {
        let webhook = WebhookRow { webhook: self.webhook };
        webhook.cells().into_iter().chain([self.secret.to_owned()]).collect()
    }

    fn fields(&self) -> Vec<String> {
        let webhook = WebhookRow { webhook: self.webhook };
        webhook.fields().into_iter().chain([self.secret.to_owned()]).collect()
    }
}

struct DeliveryRow<'a> {
    delivery: &'a Delivery,
}

/// Serializes the API's JSON.
impl Serialize for DeliveryRow<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        DeliveryBody::new(self.delivery).serialize(serializer)
    }
}

impl Row for DeliveryRow<'_> {
    const COLUMNS: &'static [&'static str] = &["id", "type", "state", "attempts", "answer", "error", "next", "changed"];
    const FIELDS: &'static [&'static str] =
        &["id", "type", "state", "attempts", "response_status", "error", "next_attempt_at", "updated_at"];

    fn id(&self) -> String {
        self.delivery.id.to_string()
    }

    fn cells(&self) -> Vec<String> {
        let mut cells = self.fields();
        cells[6] = self.delivery.next_attempt_at.map(seconds).unwrap_or_default();
        cells[7] = seconds(self.delivery.updated_at);
        cells
    }

    fn fields(&self) -> Vec<String> {
        let delivery = self.delivery;
        vec![
            delivery.id.to_string(),
            delivery.kind.clone(),
            delivery.state.as_str().to_owned(),
            delivery.attempts.to_string(),
            delivery.response_status.map(|status| status.to_string()).unwrap_or_default(),
            delivery.error.clone().unwrap_or_default(),
            delivery.next_attempt_at.map(|at| at.to_string()).unwrap_or_default(),
            delivery.updated_at.to_string(),
        ]
    }
}
