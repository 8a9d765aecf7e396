//! Posts messages to webhooks: a few at a time to each, so that a slow one holds up nobody else. A message is signed anew for
//! each attempt, by the Standard Webhooks scheme.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use standardwebhooks::Webhook as Signer;
use tokio::task::JoinSet;

use crate::{
    catalog::{Catalog, Error, Posted},
    domain::ClaimedDelivery,
    fetch::Fetcher,
    stop::Stop,
};

/// Messages under way in this process.
const MOST_UNDER_WAY: usize = 64;
/// Messages become due by themselves, and other processes' events on SQLite are not heard of.
const POLL: Duration = Duration::from_secs(1);
/// Messages that are under way may end within this after the stop; the leases of the others run out.
const GRACE: Duration = Duration::from_secs(5);
/// A result is tried to be stored so often, with this pause.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_secs(1);

/// Delivers until `stop`.
pub async fn deliver(catalog: Catalog, fetcher: Fetcher, mut stop: Stop) {
    let mut happenings = catalog.happenings();
    let mut under_way = JoinSet::new();
    loop {
        while under_way.try_join_next().is_some() {}
        let room = MOST_UNDER_WAY.saturating_sub(under_way.len());
        let claimed = if room > 0 { catalog.claim_deliveries(room).await } else { Ok(Vec::new()) };
        let again = match claimed {
            Ok(claimed) => {
                let some = !claimed.is_empty();
                for delivery in claimed {
                    under_way.spawn(attempt(catalog.clone(), fetcher.clone(), delivery));
                }
                some
            }
            Err(error) => {
                tracing::debug!(%error, "no message can be claimed for now");
                false
            }
        };
        if again && !stop.is_wanted() {
            continue;
        }
        tokio::select! {
            () = stop.wanted() => break,
            () = happenings.next() => {}
            _ = under_way.join_next(), if !under_way.is_empty() => {}
            () = tokio::time::sleep(POLL) => {}
        }
    }
    let ended = async { while under_way.join_next().await.is_some() {} };
    // Whatever is cut off is sent again by whoever finds its lease run out.
    let _ = tokio::time::timeout(GRACE, ended).await;
}

async fn attempt(catalog: Catalog, fetcher: Fetcher, claimed: ClaimedDelivery) {
    let posted = post(&fetcher, &claimed).await;
    match &posted {
        Posted::Taken { .. } => metrics::counter!("pm_webhook_messages_total", "outcome" => "taken").increment(1),
        Posted::Gone | Posted::Refused { .. } => {
            metrics::counter!("pm_webhook_messages_total", "outcome" => "refused").increment(1);
            tracing::info!(webhook.id = %claimed.webhook_id, delivery.id = %claimed.id, ?posted, "a webhook did not take a message");
        }
    }
    for _ in 0..TRIES {
        match catalog.settle_delivery(claimed.clone(), posted.clone()).await {
            Err(error) if error.is_transient() => tokio::time::sleep(PAUSE).await,
            Err(Error::LeaseLost) | Ok(()) => return,
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "a delivery could not be settled");
                return;
            }
        }
    }
}

async fn post(fetcher: &Fetcher, claimed: &ClaimedDelivery) -> Posted {
    let refused = |status, reason: String, retry_after| Posted::Refused { status, reason, retry_after };
    let Some(headers) = signed(claimed) else {
        return refused(None, "the webhook's secret cannot be used".into(), None);
    };
    match fetcher.post(&claimed.url, headers, Bytes::from(claimed.body.clone())).await {
        Ok(answer) if (200..300).contains(&answer.status) => Posted::Taken { status: answer.status },
        Ok(answer) if answer.status == 410 => Posted::Gone,
        Ok(answer) => {
            refused(Some(answer.status), format!("it answered with status {}", answer.status), answer.retry_after)
        }
        Err(error) => refused(None, error.to_string(), None),
    }
}

fn signed(claimed: &ClaimedDelivery) -> Option<HeaderMap> {
    // The database's time: a receiver would refuse what a process with a wrong clock signed.
    let seconds = claimed.claimed_at.0 / 1_000_000;
    let signer = Signer::new(&claimed.secret).ok()?;
    let signature = signer.sign(&claimed.message_id, seconds, claimed.body.as_bytes()).ok()?;
    let mut headers = HeaderMap::new();
    // Else it would say that it wants a picture.
    headers.insert("accept", HeaderValue::from_static("*/*"));
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    headers.insert("webhook-id", HeaderValue::try_from(&claimed.message_id).ok()?);
    headers.insert("webhook-timestamp", HeaderValue::from(seconds));
    headers.insert("webhook-signature", HeaderValue::try_from(signature).ok()?);
    Some(headers)
}
