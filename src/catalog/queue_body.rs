//! The API's JSON of the queue and its dead letters, which the command line's `-o json` shares.

use serde::Serialize;

use crate::{
    catalog::QueueStatus,
    clock::Timestamp,
    code::ErrorCode,
    domain::{Attempt, DeadLetter, ImageId, JobId, ProductId},
};

/// The queue as clients see it.
#[derive(Clone, Debug, Serialize)]
pub struct QueueBody {
    engine: &'static str,
    queued: u64,
    running: u64,
    dead: u64,
    oldest_queued_at: Option<Timestamp>,
    oldest_age_seconds: Option<f64>,
    done_last_minute: u64,
    broker: Option<BrokerBody>,
}

#[derive(Clone, Debug, Serialize)]
struct BrokerBody {
    status: &'static str,
    ready: Option<u64>,
    consumers: Option<u64>,
}

/// A dead letter as clients see it; alone it has a history.
#[derive(Clone, Debug, Serialize)]
pub struct DeadLetterBody<'a> {
    id: JobId,
    product_id: ProductId,
    image_id: ImageId,
    source: String,
    error: Option<ErrorBody<'a>>,
    attempts: i32,
    crashes: i32,
    request_id: Option<&'a str>,
    queued_at: Timestamp,
    died_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    history: Option<Vec<AttemptBody<'a>>>,
}

#[derive(Clone, Debug, Serialize)]
struct AttemptBody<'a> {
    attempt: i32,
    outcome: &'static str,
    error: Option<ErrorBody<'a>>,
    ended_at: Timestamp,
}

#[derive(Clone, Debug, Serialize)]
struct ErrorBody<'a> {
    code: &'static str,
    message: &'a str,
}

impl QueueBody {
    /// The form of `status`.
    pub fn new(status: &QueueStatus) -> Self {
        let depth = &status.depth;
        Self {
            engine: status.engine,
            queued: depth.queued,
            running: depth.running,
            dead: depth.dead,
            oldest_queued_at: depth.oldest,
            oldest_age_seconds: status.oldest_age.map(|age| age.as_secs_f64()),
            done_last_minute: status.done_last_minute,
            broker: status.broker.as_ref().map(|answer| match answer {
                Ok(backlog) => {
                    BrokerBody { status: "up", ready: Some(backlog.ready), consumers: Some(backlog.consumers) }
                }
                Err(_) => BrokerBody { status: "down", ready: None, consumers: None },
            }),
        }
    }
}

impl<'a> DeadLetterBody<'a> {
    /// The form of `letter` in a list.
    pub fn new(letter: &'a DeadLetter) -> Self {
        Self {
            id: letter.id,
            product_id: letter.product_id,
            image_id: letter.image_id,
            source: letter.source.shown(),
            error: error_body(letter.error.as_ref()),
            attempts: letter.attempts,
            crashes: letter.crashes,
            request_id: letter.request_id.as_deref(),
            queued_at: letter.queued_at,
            died_at: letter.died_at,
            history: None,
        }
    }

    /// The form of `letter` alone, with its attempts.
    pub fn with_history(letter: &'a DeadLetter, attempts: &'a [Attempt]) -> Self {
        let history = attempts.iter().map(|attempt| AttemptBody {
            attempt: attempt.number,
            outcome: attempt.outcome.as_str(),
            error: error_body(attempt.error.as_ref()),
            ended_at: attempt.ended_at,
        });
        Self { history: Some(history.collect()), ..Self::new(letter) }
    }
}

fn error_body(error: Option<&(ErrorCode, String)>) -> Option<ErrorBody<'_>> {
    error.map(|(code, message)| ErrorBody { code: code.as_str(), message })
}
