//! Webhooks and their deliveries.
//!
//! The transaction of an event queues a delivery for each webhook. Deliveries are claimed and settled under a lease
//! like jobs, and retried for days.

use std::time::Duration;

use serde::Serialize;
use uuid::Uuid;

use crate::{
    api::WebhookBody,
    catalog::{Catalog, Done, Error, Once, Precondition},
    clock::Timestamp,
    db::{
        Write,
        events::{
            deliveries::{self, Ending, Message},
            webhooks::{self, Breaker},
        },
    },
    domain::{
        ClaimedDelivery, Delivery, DeliveryId, DeliveryQuery, DeliveryState, EventData, NewEvent, NewWebhook, Page,
        Webhook, WebhookId,
    },
};

/// Maximum number of webhooks in an installation. Every event writes one row per webhook.
pub const MAX_WEBHOOKS: u64 = 100;
/// Maximum number of concurrent deliveries to one webhook.
const MAX_IN_FLIGHT: u32 = 4;
/// A webhook that fails for this long is disabled.
const MAX_FAILING_TIME: Duration = Duration::from_secs(5 * 24 * 3_600);
/// Retention of finished deliveries.
const DELIVERY_RETENTION: Duration = Duration::from_secs(7 * 24 * 3_600);
/// Delays before the second attempt, the third and so on, in seconds; 2.7 days in total.
const DELAYS: [u64; 10] = [5, 60, 300, 1_800, 7_200, 18_000, 36_000, 43_200, 43_200, 86_400];
/// Circuit breaker: after this many consecutive failures, a webhook gets one attempt per pause until one succeeds.
const BREAKER: Breaker = Breaker { failures: 5, pause: Duration::from_secs(10) };
/// Pause of a webhook whose secret no key decrypts.
const LOCKED_PAUSE: Duration = Duration::from_secs(60);
/// Maximum random change of a delay, as a fraction of it.
const JITTER: f64 = 0.2;

/// Result of a delivery attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Posted {
    /// The webhook accepted the message.
    Accepted {
        /// The response status.
        status: u16,
    },
    /// The webhook answered 410 Gone.
    Gone,
    /// The webhook did not accept the message.
    Refused {
        /// The response status, if there was a response.
        status: Option<u16>,
        /// Why.
        reason: String,
        /// The delay that the `Retry-After` header asks for.
        retry_after: Option<Duration>,
    },
}

/// The body of a delivery.
#[derive(Serialize)]
struct Envelope<'a> {
    r#type: &'a str,
    timestamp: Timestamp,
    data: &'a EventData,
}

impl Catalog {
    /// Creates a webhook; returns it with its signing secret, which is never returned again.
    ///
    /// # Errors
    /// [`Error::Conflict`] if there are [`MAX_WEBHOOKS`] already, [`Error::NotConfigured`] if no encryption key is set.
    pub async fn create_webhook(&self, new: NewWebhook, once: Option<Once>) -> Result<Done<(Webhook, String)>, Error> {
        let catalog = self.clone();
        self.to_the_end(async move {
            let write = catalog.database().begin().await?;
            let now = write.now().await?;
            if let Some(id) = catalog.made_before(&write, once.as_ref(), now).await? {
                let gone = || Error::gone(format_args!("webhook {id}, which this request created,"));
                let (webhook, stored) = webhooks::with_secret(&*write, id).await?.ok_or_else(gone)?;
                let secret = catalog.open_secret(id, &stored).map_err(Error::Conflict)?;
                return Ok(Done::before((webhook, secret)));
            }
            if webhooks::count(&*write).await? >= MAX_WEBHOOKS {
                return Err(Error::Conflict(format!(
                    "the limit of {MAX_WEBHOOKS} webhooks is reached; delete one first"
                )));
            }
            let secret = new.secret.clone().map_or_else(make_secret, |secret| secret.into_revealed());
            let webhook = webhooks::insert(&*write, &new, now).await?;
            let sealed = catalog.seal_new_secret(webhook.id, &secret)?;
            webhooks::replace_secret(&*write, webhook.id, "", &sealed).await?;
            catalog.keep_made(&write, once.as_ref(), &webhook.id).await?;
            write.commit().await?;
            Ok(Done::now((webhook, secret)))
        })
        .await
    }

    /// Returns all webhooks by id.
    pub async fn webhooks(&self) -> Result<Vec<Webhook>, Error> {
        Ok(webhooks::all(&self.database().read()).await?)
    }

    /// Returns a webhook.
    ///
    /// # Errors
    /// [`Error::NotFound`] if it does not exist.
    pub async fn webhook(&self, id: WebhookId) -> Result<Webhook, Error> {
        webhooks::find(&self.database().read(), id).await?.ok_or_else(|| unknown(id))
    }

    /// Deletes a webhook and its deliveries. A delivery in flight may still arrive.
    ///
    /// # Errors
    /// [`Error::NotFound`] if it does not exist, [`Error::Precondition`] if `condition` does not hold.
    pub async fn delete_webhook(&self, id: WebhookId, condition: Option<&Precondition>) -> Result<(), Error> {
        self.check_webhook(id, condition).await?;
        self.empty_webhook(id).await?;
        let catalog = self.clone();
        self.to_the_end(async move {
            let write = catalog.database().begin().await?;
            if !webhooks::delete(&*write, id).await? {
                return Err(unknown(id));
            }
            Ok(write.commit().await?)
        })
        .await
    }

    /// Disables a webhook and deletes its deliveries in batches.
    async fn empty_webhook(&self, id: WebhookId) -> Result<(), Error> {
        const BATCH_ROWS: u64 = 1_000;
        let mut first = true;
        loop {
            let catalog = self.clone();
            let removed = self.to_the_end(async move {
                let write = catalog.database().begin().await?;
                if first {
                    webhooks::disable(&*write, id, "it is being deleted").await?;
                }
                let removed = deliveries::remove(&*write, id, BATCH_ROWS).await?;
                write.commit().await?;
                Ok(removed)
            });
            if removed.await? < BATCH_ROWS {
                return Ok(());
            }
            first = false;
        }
    }

    /// Enables a disabled webhook; its queued deliveries are sent.
    ///
    /// # Errors
    /// [`Error::NotFound`] if it does not exist, [`Error::Precondition`] if `condition` does not hold.
    pub async fn enable_webhook(
        &self,
        id: WebhookId,
        condition: Option<&Precondition>,
        once: Option<Once>,
    ) -> Result<Done<Webhook>, Error> {
        self.check_webhook(id, condition).await?;
        let catalog = self.clone();
        let replayed = self
            .to_the_end(async move {
                let write = catalog.database().begin().await?;
                let now = write.now().await?;
                if catalog.made_before::<()>(&write, once.as_ref(), now).await?.is_some() {
                    return Ok(true);
                }
                if !webhooks::enable(&*write, id).await? {
                    return Err(unknown(id));
                }
                catalog.keep_made(&write, once.as_ref(), &()).await?;
                write.commit().await?;
                Ok(false)
            })
            .await?;
        self.0.event_signal.signal();
        Ok(Done { value: self.webhook(id).await?, replayed })
    }

    /// Checks the precondition of a change. The editable fields of a webhook never change, so the check needs no lock.
    async fn check_webhook(&self, id: WebhookId, condition: Option<&Precondition>) -> Result<(), Error> {
        let webhook = self.webhook(id).await?;
        condition.map_or(Ok(()), |condition| WebhookBody::check(&webhook, condition))
    }

    /// Returns a page of a webhook's deliveries, latest first.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the webhook does not exist.
    pub async fn deliveries(&self, id: WebhookId, page: DeliveryQuery) -> Result<Page<Delivery>, Error> {
        self.webhook(id).await?;
        let (items, more) = deliveries::list(&self.database().read(), id, page).await?;
        let next_cursor = items.last().filter(|_| more).map(|last| last.id.to_string());
        Ok(Page { items, next_cursor })
    }

    /// Queues a finished or failed delivery again.
    ///
    /// # Errors
    /// [`Error::NotFound`] if it does not exist, [`Error::Conflict`] if it is queued or in flight.
    pub async fn retry_delivery(
        &self,
        webhook: WebhookId,
        id: DeliveryId,
        once: Option<Once>,
    ) -> Result<Done<()>, Error> {
        let catalog = self.clone();
        let retried = self
            .to_the_end(async move {
                let write = catalog.database().begin().await?;
                let now = write.now().await?;
                if catalog.made_before::<()>(&write, once.as_ref(), now).await?.is_some() {
                    return Ok(Done::before(()));
                }
                match deliveries::requeue(&*write, webhook, id, now).await? {
                    None => return Err(Error::not_found(format_args!("delivery {id} of webhook {webhook}"))),
                    Some(false) => {
                        return Err(Error::Conflict(format!("delivery {id} is already queued or in flight")));
                    }
                    Some(true) => catalog.keep_made(&write, once.as_ref(), &()).await?,
                }
                write.commit().await?;
                Ok(Done::now(()))
            })
            .await?;
        self.0.event_signal.signal();
        Ok(retried)
    }

    /// Claims due deliveries: at most one per webhook, and `most` in total.
    ///
    /// Skips webhooks that are paused or have four deliveries in flight. Deliveries of a webhook whose
    /// secret no key decrypts stay queued.
    pub async fn claim_deliveries(&self, most: usize) -> Result<Vec<ClaimedDelivery>, Error> {
        let now = self.now().await?;
        let mut claimed = Vec::new();
        // A read does not take the write lock.
        let webhooks = deliveries::with_work(&self.database().read(), MAX_IN_FLIGHT, now).await?;
        for webhook in webhooks.into_iter().take(most) {
            let catalog = self.clone();
            let one = self.to_the_end(async move {
                let token = catalog.lease_token().await;
                let write = catalog.database().begin().await?;
                let now = write.now().await?;
                let lease = (token.as_str(), now.plus(deliveries::LEASE));
                let claimed = deliveries::claim(&*write, webhook, (MAX_IN_FLIGHT, BREAKER), lease, now).await?;
                let claimed = catalog.with_secret(&write, claimed, now).await?;
                write.commit().await?;
                Ok(claimed)
            });
            claimed.extend(one.await?);
        }
        Ok(claimed)
    }

    /// Decrypts the signing secret of a claimed delivery.
    ///
    /// If no key decrypts it, the delivery returns to the queue and its webhook is paused. Another process may have the
    /// key, or this one may get it at its next start.
    async fn with_secret(
        &self,
        write: &Write,
        claimed: Option<ClaimedDelivery>,
        now: Timestamp,
    ) -> Result<Option<ClaimedDelivery>, Error> {
        let Some(claimed) = claimed else { return Ok(None) };
        match self.open_secret(claimed.webhook_id, claimed.secret.reveal()) {
            Ok(secret) => Ok(Some(ClaimedDelivery { secret: secret.into(), ..claimed })),
            Err(reason) => {
                tracing::warn!(webhook.id = %claimed.webhook_id, "{reason}; its deliveries stay queued");
                deliveries::withhold(&**write, &claimed, &reason, now).await?;
                webhooks::pause(&**write, claimed.webhook_id, now.plus(LOCKED_PAUSE)).await?;
                Ok(None)
            }
        }
    }

    /// Records the result of a delivery attempt.
    ///
    /// A webhook that answered 410, or failed for five days, is disabled.
    ///
    /// # Errors
    /// [`Error::LeaseLost`] if the lease was lost or the webhook was deleted.
    pub async fn settle_delivery(&self, claimed: ClaimedDelivery, posted: Posted) -> Result<(), Error> {
        let catalog = self.clone();
        self.to_the_end(async move {
            let write = catalog.database().begin().await?;
            let now = write.now().await?;
            // The webhook is locked before the delivery, in the same order as a deletion. A lost lease rolls this back.
            note(&write, claimed.webhook_id, &posted, now).await?;
            let ending = ending_of(&claimed, &posted, now);
            if !deliveries::settle(&*write, &claimed, &ending, now).await? {
                return Err(Error::LeaseLost);
            }
            Ok(write.commit().await?)
        })
        .await
    }

    /// Deletes deliveries that ended over a week ago, at most 1,000; returns how many.
    pub async fn delete_expired_deliveries(&self) -> Result<u64, Error> {
        const BATCH_ROWS: u64 = 1_000;
        let before = self.now().await?.minus(DELIVERY_RETENTION);
        if !deliveries::any_over(&self.database().read(), before).await? {
            return Ok(0);
        }
        let write = self.database().begin().await?;
        let deleted = deliveries::delete_expired(&*write, before, BATCH_ROWS).await?;
        write.commit().await?;
        Ok(deleted)
    }
}

/// Queues deliveries of events in their transaction.
pub(in crate::catalog) async fn enqueue(write: &Write, events: &[NewEvent]) -> Result<(), Error> {
    let Some(first) = events.first() else { return Ok(()) };
    let messages: Result<Vec<_>, Error> = events.iter().map(message_of).collect();
    deliveries::enqueue(&**write, &messages?, first.created_at).await?;
    Ok(())
}

fn message_of(event: &NewEvent) -> Result<Message, Error> {
    let envelope = Envelope { r#type: event.kind.as_str(), timestamp: event.created_at, data: &event.data };
    let body = serde_json::to_string(&envelope).map_err(Error::internal)?;
    Ok(Message { id: format!("evt_{}", Uuid::now_v7().simple()), kind: event.kind, body })
}

fn ending_of(claimed: &ClaimedDelivery, posted: &Posted, now: Timestamp) -> Ending {
    let over = |state, response_status, error| Ending { state, run_at: now, response_status, error };
    match posted {
        Posted::Accepted { status } => over(DeliveryState::Done, Some(*status), None),
        Posted::Gone => over(DeliveryState::Dead, Some(410), Some("the webhook answered 410 Gone".into())),
        Posted::Refused { status, reason, retry_after } => {
            match delay(claimed.attempt, *retry_after, fastrand::f64()) {
                Some(delay) => {
                    let again = over(DeliveryState::Queued, *status, Some(reason.clone()));
                    Ending { run_at: now.plus(delay), ..again }
                }
                None => over(DeliveryState::Dead, *status, Some(reason.clone())),
            }
        }
    }
}

async fn note(write: &Write, webhook: WebhookId, posted: &Posted, now: Timestamp) -> Result<(), Error> {
    match posted {
        Posted::Accepted { .. } => {
            let failures = webhooks::note_success(&**write, webhook).await?;
            if failures >= i64::from(BREAKER.failures) {
                tracing::info!(webhook.id = %webhook, failures, "webhook {webhook} accepts deliveries again");
            }
        }
        Posted::Gone => webhooks::disable(&**write, webhook, "it answered 410 Gone").await?,
        Posted::Refused { .. } => {
            let failing = webhooks::note_failure(&**write, webhook, BREAKER, now).await?;
            let Some(failing) = failing else { return Ok(()) };
            if failing.failures == i64::from(BREAKER.failures) {
                let pause_seconds = BREAKER.pause.as_secs();
                tracing::warn!(webhook.id = %webhook, pause_seconds, "webhook {webhook} failed {} times in a row; \
                    it gets one attempt every {pause_seconds} s until one succeeds", failing.failures);
                metrics::counter!("pm_webhook_pauses_total").increment(1);
            }
            if now.since(failing.since) > MAX_FAILING_TIME {
                webhooks::disable(&**write, webhook, "no delivery succeeded for five days").await?;
            }
        }
    }
    Ok(())
}

/// Returns the delay after the failed attempt number `attempt`; `None` after the last one.
///
/// A longer delay in `Retry-After` wins, up to a day. `chance` is in 0.0..1.0.
fn delay(attempt: i32, asked_for: Option<Duration>, chance: f64) -> Option<Duration> {
    let place = usize::try_from(attempt.saturating_sub(1)).unwrap_or(0);
    let own = Duration::from_secs(*DELAYS.get(place)?).mul_f64(1.0 + JITTER * (2.0 * chance - 1.0));
    Some(asked_for.map_or(own, |asked| asked.min(Duration::from_secs(86_400)).max(own)))
}

/// Generates a signing secret of 32 random bytes.
pub(crate) fn make_secret() -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let bytes = [Uuid::new_v4().into_bytes(), Uuid::new_v4().into_bytes()].concat();
    format!("whsec_{}", STANDARD.encode(bytes))
}

fn unknown(id: WebhookId) -> Error {
    Error::not_found(format_args!("webhook {id}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_is_retried_for_more_than_two_days() {
        let total: f64 = (1..).map_while(|attempt| delay(attempt, None, 0.5)).map(|delay| delay.as_secs_f64()).sum();
        assert!((2.0 * 86_400.0..4.0 * 86_400.0).contains(&total), "{total} s");
        assert_eq!(delay(11, None, 0.5), None);
        assert_eq!(delay(11, Some(Duration::from_secs(5)), 0.5), None);
    }

    #[test]
    fn retry_after_lengthens_a_delay_but_never_shortens_it() {
        assert_eq!(delay(1, Some(Duration::from_secs(600)), 0.5), Some(Duration::from_secs(600)));
        assert_eq!(delay(3, Some(Duration::from_secs(1)), 0.5), Some(Duration::from_secs(300)));
        assert_eq!(delay(1, Some(Duration::from_secs(1_000_000)), 0.5), Some(Duration::from_secs(86_400)));
    }
}
