//! The API's JSON of the queue and its dead letters, which the command line's `-o json` shares.

use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    clock::Timestamp,
    code::ErrorCode,
    domain::{Attempt, DeadLetter, ImageId, JobId, ProductId, QueueStatus},
};

/// How full the queue is.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Queue)]
pub struct QueueBody {
    /// How workers learn of jobs: `rabbitmq` or `database`.
    engine: &'static str,
    /// Jobs that wait; 100,001 stands for more.
    queued: u64,
    /// Jobs that a worker has.
    running: u64,
    /// Jobs that failed for good.
    dead: u64,
    /// When the job that has been due longest was queued; null if none waits.
    #[schema(required)]
    oldest_queued_at: Option<Timestamp>,
    /// The time since then.
    #[schema(required)]
    oldest_age_seconds: Option<f64>,
    /// Jobs that ended well within the last minute.
    done_last_minute: u64,
    /// The message broker; null if there is none.
    #[schema(required)]
    broker: Option<BrokerBody>,
}

/// The message broker.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Broker)]
struct BrokerBody {
    /// `up` or `down`.
    status: &'static str,
    /// Messages that wait; null if it does not answer.
    #[schema(required)]
    ready: Option<u64>,
    /// Workers that listen; null if it does not answer.
    #[schema(required)]
    consumers: Option<u64>,
}

/// A job that failed for good.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = DeadLetter)]
pub struct DeadLetterBody<'a> {
    /// The job's number.
    id: JobId,
    /// The product.
    product_id: ProductId,
    /// The picture.
    image_id: ImageId,
    /// Where the picture comes from, without what may be a secret.
    source: String,
    /// Why it failed.
    #[schema(required)]
    error: Option<ErrorBody<'a>>,
    /// How often it was tried.
    attempts: i32,
    /// How many workers or decoders died over it.
    crashes: i32,
    /// The request that caused it.
    #[schema(required)]
    request_id: Option<&'a str>,
    /// When it was queued.
    queued_at: Timestamp,
    /// When it failed for good.
    died_at: Timestamp,
    /// Every attempt that failed, oldest first; only where one dead letter is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    history: Option<Vec<AttemptBody<'a>>>,
}

/// An attempt that did not succeed.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Attempt)]
struct AttemptBody<'a> {
    /// From 1.
    attempt: i32,
    /// `retry`, `failed`, `crashed`, `worker_died` or `lease_lost`.
    outcome: &'static str,
    /// Why.
    #[schema(required)]
    error: Option<ErrorBody<'a>>,
    /// When it ended.
    ended_at: Timestamp,
}

/// Why a job failed.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = JobError)]
struct ErrorBody<'a> {
    /// One of the closed list of codes.
    code: &'static str,
    /// A sentence for people.
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
