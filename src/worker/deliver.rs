//! Delivers events to webhooks.
//!
//! Each webhook gets only a few requests at a time, so a slow one does not delay the others. Each attempt is signed
//! with the current time, as Standard Webhooks requires.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use standardwebhooks::Webhook as Signer;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    catalog::{Catalog, Error, Posted},
    domain::ClaimedDelivery,
    fetch::Fetcher,
};

/// Maximum number of concurrent deliveries in this process.
const MAX_IN_FLIGHT: usize = 64;
/// Poll interval: retries become due over time, and SQLite does not announce other processes' events.
const POLL: Duration = Duration::from_secs(1);
/// Time that running deliveries have to end after a stop; the others' leases expire.
const GRACE: Duration = Duration::from_secs(5);
/// Attempts to store a result, and the pause between them.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_secs(1);

/// Delivers events until `stop`.
pub async fn deliver(catalog: Catalog, fetcher: Fetcher, stop: CancellationToken) {
    let mut signals = catalog.signals();
    let mut under_way = JoinSet::new();
    loop {
        while under_way.try_join_next().is_some() {}
        let room = MAX_IN_FLIGHT.saturating_sub(under_way.len());
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
                tracing::debug!(%error, "cannot claim deliveries; retrying");
                false
            }
        };
        if again && !stop.is_cancelled() {
            continue;
        }
        tokio::select! {
            () = stop.cancelled() => break,
            () = signals.next() => {}
            _ = under_way.join_next(), if !under_way.is_empty() => {}
            () = tokio::time::sleep(POLL) => {}
        }
    }
    let ended = async { while under_way.join_next().await.is_some() {} };
    // An aborted delivery is sent again when its lease expires.
    let _ = tokio::time::timeout(GRACE, ended).await;
}

async fn attempt(catalog: Catalog, fetcher: Fetcher, claimed: ClaimedDelivery) {
    let posted = post(&fetcher, &claimed).await;
    match &posted {
        Posted::Accepted { .. } => metrics::counter!("pm_webhook_messages_total", "outcome" => "taken").increment(1),
        Posted::Gone | Posted::Refused { .. } => {
            metrics::counter!("pm_webhook_messages_total", "outcome" => "refused").increment(1);
            tracing::info!(
                webhook.id = %claimed.webhook_id,
                delivery.id = %claimed.id,
                ?posted,
                "webhook rejected a delivery"
            );
        }
    }
    for _ in 0..TRIES {
        match catalog.settle_delivery(claimed.clone(), posted.clone()).await {
            Err(error) if error.is_transient() => tokio::time::sleep(PAUSE).await,
            Err(Error::LeaseLost) | Ok(()) => return,
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "cannot store a delivery's result");
                return;
            }
        }
    }
}

async fn post(fetcher: &Fetcher, claimed: &ClaimedDelivery) -> Posted {
    let refused = |status, reason: String, retry_after| Posted::Refused { status, reason, retry_after };
    let Some(headers) = signed(claimed) else {
        return refused(None, "the webhook's signing secret is invalid".into(), None);
    };
    match fetcher.post(&claimed.url, headers, Bytes::from(claimed.body.clone())).await {
        Ok(answer) if (200..300).contains(&answer.status) => Posted::Accepted { status: answer.status },
        Ok(answer) if answer.status == 410 => Posted::Gone,
        Ok(answer) => {
            let reason = format!("the webhook answered with status {}", answer.status);
            refused(Some(answer.status), reason, answer.retry_after)
        }
        Err(error) => refused(None, error.to_string(), None),
    }
}

fn signed(claimed: &ClaimedDelivery) -> Option<HeaderMap> {
    // Use the database's time: receivers reject a timestamp from a wrong clock.
    let seconds = claimed.claimed_at.0 / 1_000_000;
    let signer = Signer::new(claimed.secret.reveal()).ok()?;
    let signature = signer.sign(&claimed.message_id, seconds, claimed.body.as_bytes()).ok()?;
    let mut headers = HeaderMap::new();
    // Without this the fetcher's default would accept only images.
    headers.insert("accept", HeaderValue::from_static("*/*"));
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    headers.insert("webhook-id", HeaderValue::try_from(&claimed.message_id).ok()?);
    headers.insert("webhook-timestamp", HeaderValue::from(seconds));
    headers.insert("webhook-signature", HeaderValue::try_from(signature).ok()?);
    Some(headers)
}
