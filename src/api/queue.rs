//! JSON of the queue and its dead letters.

use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    clock::Timestamp,
    code::ErrorCode,
    domain::{Attempt, DeadLetter, ImageId, JobId, ProductId, QueueStatus},
};

/// The status of the queue.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Queue)]
pub struct QueueBody {
    /// The queue engine: `rabbitmq` or `database`.
    engine: &'static str,
    /// Number of queued jobs, counted up to 100,001.
    queued: u64,
    /// Number of jobs that workers are processing.
    running: u64,
    /// Number of dead letters, the jobs that failed permanently.
    dead: u64,
    /// When the oldest due job was queued; null if no job is due.
    #[schema(required)]
    oldest_queued_at: Option<Timestamp>,
    /// Age of the oldest due job in seconds; null if no job is due.
    #[schema(required)]
    oldest_age_seconds: Option<f64>,
    /// Number of jobs that succeeded in the last minute.
    done_last_minute: u64,
    /// The message broker; null if none is configured.
    #[schema(required)]
    broker: Option<BrokerBody>,
}

/// The status of the message broker.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Broker)]
struct BrokerBody {
    /// `up`, or `down` if the broker does not answer.
    status: &'static str,
    /// Number of messages in its queue; null if it is down.
    #[schema(required)]
    ready: Option<u64>,
    /// Number of consumers; null if it is down.
    #[schema(required)]
    consumers: Option<u64>,
}

/// A job that failed permanently.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = DeadLetter)]
pub struct DeadLetterBody<'a> {
    /// Id of the job.
    id: JobId,
    /// Id of the product.
    product_id: ProductId,
    /// Id of the image.
    image_id: ImageId,
    /// Source of the image: a URL without its query, or an uploaded file.
    source: String,
    /// The error of the last attempt.
    #[schema(required)]
    error: Option<ErrorBody<'a>>,
    /// Number of attempts.
    attempts: i32,
    /// Number of workers and decoders that crashed on it.
    crashes: i32,
    /// Id of the request that queued it.
    #[schema(required)]
    request_id: Option<&'a str>,
    /// When it was queued.
    queued_at: Timestamp,
    /// When it failed permanently.
    died_at: Timestamp,
    /// Failed attempts, oldest first; absent in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    history: Option<Vec<AttemptBody<'a>>>,
}

/// A failed attempt of a job.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Attempt)]
struct AttemptBody<'a> {
    /// Number of the attempt, from 1.
    attempt: i32,
    /// Result: `retry`, `failed`, `crashed`, `worker_died` or `lease_lost`.
    outcome: &'static str,
    /// The error; null if none was recorded.
    #[schema(required)]
    error: Option<ErrorBody<'a>>,
    /// When the attempt ended.
    ended_at: Timestamp,
}

/// The error of a job.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = JobError)]
struct ErrorBody<'a> {
    /// Error code.
    code: &'static str,
    /// Description of the error.
    message: &'a str,
}

impl QueueBody {
    /// Creates the body of `status`.
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
    /// Creates the body of `letter` without its attempts.
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

    /// Creates the body of `letter` with its attempts.
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
