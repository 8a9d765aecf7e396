//! The experiments, one for each promise, and the set-ups on which each one runs.

mod accepted_images_survive;
mod acknowledged_writes_survive;
mod api_works_without_broker;
mod backup_restores_everything;
mod bad_input_is_refused;
pub mod blobs_are_never_torn;
mod broken_images_are_contained;
mod broker_connections_recover;
mod cold_key_is_read_once;
mod cut_connections;
mod damaged_copies_are_repaired;
mod dead_workers_jobs_are_reclaimed;
mod failover;
mod fairness;
mod floods;
pub mod forbidden_addresses_are_refused;
mod frozen_worker_cannot_overwrite;
mod full_disk_is_survived;
mod gc_leaves_no_orphans;
mod hijacked_decoder_is_contained;
mod idempotency_key_makes_one_product;
mod installations;
mod occupied_workers;
mod only_valid_tokens_pass;
mod poison_images_are_contained;
mod rabbitmq_may_lose_its_data;
mod rate_limit_is_exact;
mod reads_are_never_stale;
mod redis_is_optional;
mod retries_follow_the_schedule;
mod schema_change;
mod sigterm_loses_nothing;
mod slow_clients_do_not_block_others;
pub mod soak_grows_nothing;
mod traffic;
mod wrong_clocks_are_tolerated;

use std::{future::Future, pin::Pin};

use crate::{
    soundness::Counts,
    stage::{Setup, Stage},
};

/// A promise and the experiment that proves it.
pub struct Experiment {
    /// Its number, such as `P1`.
    pub promise: &'static str,
    /// The promise in a few words; a part of the test's name.
    pub title: &'static str,
    /// The set-ups on which it proves something.
    pub setups: &'static [Setup],
    /// Its effect on the shared engines.
    pub engines: Use,
    run: for<'a> fn(&'a Stage) -> Run<'a>,
}

/// An experiment's effect on the engines of the full set-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Only uses them, so that others may run in parallel.
    Peaceful,
    /// Kills or stops them or deletes their data, so it runs alone.
    Hostile,
}

type Run<'a> = Pin<Box<dyn Future<Output = anyhow::Result<Counts>> + 'a>>;

const BOTH: &[Setup] = &[Setup::Embedded, Setup::Full];

const EMBEDDED: &[Setup] = &[Setup::Embedded];

const FULL: &[Setup] = &[Setup::Full];

/// All experiments, ordered by number.
pub const ALL: &[Experiment] = &[
    Experiment {
        promise: "P1",
        title: "no accepted image is lost or finished twice",
        setups: BOTH,
        engines: Use::Peaceful,
        run: |stage| Box::pin(accepted_images_survive::run(stage)),
    },
    Experiment {
        promise: "P2",
        title: "another worker claims a dead worker's image within 20 s",
        setups: BOTH,
        engines: Use::Peaceful,
        run: |stage| Box::pin(dead_workers_jobs_are_reclaimed::run(stage)),
    },
    Experiment {
        promise: "P3",
        title: "a frozen worker cannot overwrite",
        setups: BOTH,
        engines: Use::Peaceful,
        run: |stage| Box::pin(frozen_worker_cannot_overwrite::run(stage)),
    },
    Experiment {
        promise: "P4",
        title: "acknowledged writes survive",
        setups: BOTH,
        engines: Use::Hostile,
        run: |stage| Box::pin(acknowledged_writes_survive::run(stage)),
    },
    Experiment {
        promise: "P5",
        title: "RabbitMQ may lose everything",
        setups: FULL,
        engines: Use::Hostile,
        run: |stage| Box::pin(rabbitmq_may_lose_its_data::run(stage)),
    },
    Experiment {
        promise: "P6",
        title: "workers and the relay always reconnect",
        setups: FULL,
        engines: Use::Hostile,
        run: |stage| Box::pin(broker_connections_recover::run(stage)),
    },
    Experiment {
        promise: "P7",
        title: "a broker that is down does not stop the API",
        setups: FULL,
        engines: Use::Hostile,
        run: |stage| Box::pin(api_works_without_broker::run(stage)),
    },
    Experiment {
        promise: "P8",
        title: "Redis is optional",
        setups: FULL,
        engines: Use::Hostile,
        run: |stage| Box::pin(redis_is_optional::run(stage)),
    },
    Experiment {
        promise: "P9",
        title: "no stale read after an acknowledged write",
        setups: BOTH,
        engines: Use::Hostile,
        run: |stage| Box::pin(reads_are_never_stale::run(stage)),
    },
    Experiment {
        promise: "P10",
        title: "one database read for a cold product",
        setups: BOTH,
        engines: Use::Peaceful,
        run: |stage| Box::pin(cold_key_is_read_once::run(stage)),
    },
    Experiment {
        promise: "P11",
        title: "no request reaches a forbidden address",
        setups: EMBEDDED,
        engines: Use::Peaceful,
        run: |stage| Box::pin(forbidden_addresses_are_refused::run(stage)),
    },
    Experiment {
        promise: "P12",
        title: "no image harms a worker",
        setups: BOTH,
        engines: Use::Peaceful,
        run: |stage| Box::pin(broken_images_are_contained::run(stage)),
    },
    Experiment {
        promise: "P13",
        title: "a poison image affects no other image",
        setups: BOTH,
        engines: Use::Peaceful,
        run: |stage| Box::pin(poison_images_are_contained::run(stage)),
    },
    Experiment {
        promise: "P14",
        title: "slow clients do not block other clients",
        setups: BOTH,
        engines: Use::Peaceful,
        run: |stage| Box::pin(slow_clients_do_not_block_others::run(stage)),
    },
    Experiment {
        promise: "P15",
        title: "invalid input is refused",
        setups: BOTH,
        engines: Use::Peaceful,
        run: |stage| Box::pin(bad_input_is_refused::run(stage)),
    },
    Experiment {
        promise: "P16",
        title: "SIGTERM loses nothing",
        setups: BOTH,
        engines: Use::Peaceful,
        run: |stage| Box::pin(sigterm_loses_nothing::run(stage)),
    },
    Experiment {
        promise: "P17",
        title: "a full disk is survived",
        setups: EMBEDDED,
        engines: Use::Peaceful,
        run: |stage| Box::pin(full_disk_is_survived::run(stage)),
    },
    Experiment {
        promise: "P18",
        title: "no torn blob",
        setups: EMBEDDED,
        engines: Use::Peaceful,
        run: |stage| Box::pin(blobs_are_never_torn::run(stage)),
    },
    Experiment {
        promise: "P19",
        title: "no orphaned blob, no dangling reference",
        setups: BOTH,
        engines: Use::Peaceful,
        run: |stage| Box::pin(gc_leaves_no_orphans::run(stage)),
    },
    Experiment {
        promise: "P20",
        title: "an idempotency key creates one product",
        setups: BOTH,
        engines: Use::Peaceful,
        run: |stage| Box::pin(idempotency_key_makes_one_product::run(stage)),
    },
    Experiment {
        promise: "P21",
        title: "retries follow the schedule",
        setups: BOTH,
        engines: Use::Peaceful,
        run: |stage| Box::pin(retries_follow_the_schedule::run(stage)),
    },
    Experiment {
        promise: "P22",
        title: "exactly the valid tokens are accepted",
        setups: EMBEDDED,
        engines: Use::Peaceful,
        run: |stage| Box::pin(only_valid_tokens_pass::run(stage)),
    },
    Experiment {
        promise: "P23",
        title: "the rate limit is exact",
        setups: BOTH,
        engines: Use::Hostile,
        run: |stage| Box::pin(rate_limit_is_exact::run(stage)),
    },
    Experiment {
        promise: "P24",
        title: "backup and restore",
        setups: BOTH,
        engines: Use::Peaceful,
        run: |stage| Box::pin(backup_restores_everything::run(stage)),
    },
    Experiment {
        promise: "P25",
        title: "installations never mix",
        setups: BOTH,
        engines: Use::Peaceful,
        run: |stage| Box::pin(installations::run(stage)),
    },
    Experiment {
        promise: "P26",
        title: "the schema may change under a running program",
        setups: BOTH,
        engines: Use::Peaceful,
        run: |stage| Box::pin(schema_change::run(stage)),
    },
    Experiment {
        promise: "P27",
        title: "an error is never an empty result",
        setups: BOTH,
        engines: Use::Peaceful,
        run: |stage| Box::pin(cut_connections::run(stage)),
    },
    Experiment {
        promise: "P28",
        title: "clocks may be wrong",
        setups: BOTH,
        engines: Use::Hostile,
        run: |stage| Box::pin(wrong_clocks_are_tolerated::run(stage)),
    },
    Experiment {
        promise: "P29",
        title: "no stale read after a failover of Redis",
        setups: FULL,
        engines: Use::Hostile,
        run: |stage| Box::pin(failover::run(stage)),
    },
    Experiment {
        promise: "P30",
        title: "no user is starved",
        setups: BOTH,
        engines: Use::Peaceful,
        run: |stage| Box::pin(fairness::run(stage)),
    },
    Experiment {
        promise: "P31",
        title: "no client blocks other clients",
        setups: BOTH,
        engines: Use::Peaceful,
        run: |stage| Box::pin(floods::run(stage)),
    },
    Experiment {
        promise: "P32",
        title: "damaged copies are detected and repaired",
        setups: BOTH,
        engines: Use::Peaceful,
        run: |stage| Box::pin(damaged_copies_are_repaired::run(stage)),
    },
    Experiment {
        promise: "P33",
        title: "a compromised decoder affects only its own image",
        setups: BOTH,
        engines: Use::Peaceful,
        run: |stage| Box::pin(hijacked_decoder_is_contained::run(stage)),
    },
    Experiment {
        promise: "P34",
        title: "resources do not grow over time",
        setups: BOTH,
        engines: Use::Peaceful,
        run: |stage| Box::pin(soak_grows_nothing::run(stage)),
    },
];

impl Experiment {
    /// Returns the test's name: `p1_no_accepted_image_is_lost_or_finished_twice::full`.
    pub fn name(&self, setup: Setup) -> String {
        let words: Vec<_> =
            self.title.split(|letter: char| !letter.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
        let setup = match setup {
            Setup::Embedded => "embedded",
            Setup::Full => "full",
        };
        format!("{}_{}::{setup}", self.promise.to_lowercase(), words.join("_").to_lowercase())
    }

    /// Runs the experiment.
    pub async fn run(&self, stage: &Stage) -> anyhow::Result<Counts> {
        (self.run)(stage).await
    }
}
