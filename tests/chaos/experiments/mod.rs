//! The experiments, one for each promise, and on which set-ups each says something.

mod cut_connections;
mod failover;
mod fairness;
mod floods;
mod hostages;
mod installations;
mod p01;
mod p02;
mod p03;
mod p04;
mod p05;
mod p06;
mod p07;
mod p08;
mod p09;
mod p10;
pub mod p11;
mod p12;
mod p13;
mod p14;
mod p15;
mod p16;
mod p17;
pub mod p18;
mod p19;
mod p20;
mod p21;
mod p22;
mod p23;
mod p24;
mod p28;
mod p32;
mod p33;
pub mod p34;
mod schema_change;
mod traffic;

use std::{future::Future, pin::Pin};

use crate::{
    soundness::Counts,
    stage::{Setup, Stage},
};

/// One promise and how it is put to the proof.
pub struct Experiment {
    /// Its number, such as `P1`.
    pub promise: &'static str,
    /// What is promised, in a few words; a part of its name.
    pub title: &'static str,
    /// Where it says something.
    pub setups: &'static [Setup],
    /// What it does to the engines that the experiments share.
    pub engines: Use,
    run: for<'a> fn(&'a Stage) -> Run<'a>,
}

/// What an experiment does to the engines of the full set-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// It only uses them, so that others may run beside it.
    Peaceful,
    /// It kills, stops or robs them, so that it runs alone.
    Hostile,
}

type Run<'a> = Pin<Box<dyn Future<Output = anyhow::Result<Counts>> + 'a>>;

const BOTH: &[Setup] = &[Setup::Embedded, Setup::Full];

const EMBEDDED: &[Setup] = &[Setup::Embedded];

const FULL: &[Setup] = &[Setup::Full];

/// All of them, in the order of their numbers.
pub const ALL: &[Experiment] = &[
    Experiment {
        promise: "P1",
        title: "no accepted image is lost, none ends twice",
        setups: BOTH,
        engines: Use::Peaceful,
        run: |stage| Box::pin(p01::run(stage)),
    },
    Experiment {
        promise: "P2",
        title: "a dead worker's image is taken up again within 20 s",
        setups: BOTH,
        engines: Use::Peaceful,
        run: |stage| Box::pin(p02::run(stage)),
    },
    Experiment {
        promise: "P3",
        title: "a frozen worker cannot overwrite",
        setups: BOTH,
        engines: Use::Peaceful,
        run: |stage| Box::pin(p03::run(stage)),
    },
    Experiment {
        promise: "P4",
        title: "acknowledged writes survive",
        setups: BOTH,
        engines: Use::Hostile,
        run: |stage| Box::pin(p04::run(stage)),
    },
    Experiment {
        promise: "P5",
        title: "RabbitMQ may lose everything",
        setups: FULL,
        engines: Use::Hostile,
        run: |stage| Box::pin(p05::run(stage)),
    },
    Experiment {
        promise: "P6",
        title: "always reconnects",
        setups: FULL,
        engines: Use::Hostile,
        run: |stage| Box::pin(p06::run(stage)),
    },
    Experiment {
        promise: "P7",
        title: "a broker that is down does not stop the API",
        setups: FULL,
        engines: Use::Hostile,
        run: |stage| Box::pin(p07::run(stage)),
    },
    Experiment {
        promise: "P8",
        title: "Redis is optional",
        setups: FULL,
        engines: Use::Hostile,
        run: |stage| Box::pin(p08::run(stage)),
    },
    Experiment {
        promise: "P9",
        title: "no stale read after an acknowledged write",
        setups: BOTH,
        engines: Use::Hostile,
        run: |stage| Box::pin(p09::run(stage)),
    },
    Experiment {
        promise: "P10",
        title: "one database read a cold key",
        setups: BOTH,
        engines: Use::Peaceful,
        run: |stage| Box::pin(p10::run(stage)),
    },
    Experiment {
        promise: "P11",
        title: "no request reaches a forbidden address",
        setups: EMBEDDED,
        engines: Use::Peaceful,
        run: |stage| Box::pin(p11::run(stage)),
    },
    Experiment {
        promise: "P12",
        title: "no image harms a worker",
        setups: BOTH,
        engines: Use::Peaceful,
        run: |stage| Box::pin(p12::run(stage)),
    },
    Experiment {
        promise: "P13",
        title: "poison is contained",
        setups: BOTH,
        engines: Use::Peaceful,
        run: |stage| Box::pin(p13::run(stage)),
    },
    Experiment {
        promise: "P14",
        title: "slow clients starve nobody",
        setups: BOTH,
        engines: Use::Peaceful,
        run: |stage| Box::pin(p14::run(stage)),
    },
    Experiment {
        promise: "P15",
        title: "bad input is answered, not suffered",
        setups: BOTH,
        engines: Use::Peaceful,
        run: |stage| Box::pin(p15::run(stage)),
    },
    Experiment {
        promise: "P16",
        title: "SIGTERM loses nothing",
        setups: BOTH,
        engines: Use::Peaceful,
        run: |stage| Box::pin(p16::run(stage)),
    },
    Experiment {
        promise: "P17",
        title: "a full disk is survived",
        setups: EMBEDDED,
        engines: Use::Peaceful,
        run: |stage| Box::pin(p17::run(stage)),
    },
    Experiment {
        promise: "P18",
        title: "no torn blob",
        setups: EMBEDDED,
        engines: Use::Peaceful,
        run: |stage| Box::pin(p18::run(stage)),
    },
    Experiment {
        promise: "P19",
        title: "no orphan, nothing dangling",
        setups: BOTH,
        engines: Use::Peaceful,
        run: |stage| Box::pin(p19::run(stage)),
    },
    Experiment {
        promise: "P20",
        title: "an idempotency key makes one product",
        setups: BOTH,
        engines: Use::Peaceful,
        run: |stage| Box::pin(p20::run(stage)),
    },
    Experiment {
        promise: "P21",
        title: "retries are right",
        setups: BOTH,
        engines: Use::Peaceful,
        run: |stage| Box::pin(p21::run(stage)),
    },
    Experiment {
        promise: "P22",
        title: "exactly the valid tokens are believed",
        setups: EMBEDDED,
        engines: Use::Peaceful,
        run: |stage| Box::pin(p22::run(stage)),
    },
    Experiment {
        promise: "P23",
        title: "the rate limit is exact",
        setups: BOTH,
        engines: Use::Hostile,
        run: |stage| Box::pin(p23::run(stage)),
    },
    Experiment {
        promise: "P24",
        title: "backup and restore",
        setups: BOTH,
        engines: Use::Peaceful,
        run: |stage| Box::pin(p24::run(stage)),
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
        title: "an error is never an empty answer",
        setups: BOTH,
        engines: Use::Peaceful,
        run: |stage| Box::pin(cut_connections::run(stage)),
    },
    Experiment {
        promise: "P28",
        title: "clocks may be wrong",
        setups: BOTH,
        engines: Use::Hostile,
        run: |stage| Box::pin(p28::run(stage)),
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
        title: "nobody starves",
        setups: BOTH,
        engines: Use::Peaceful,
        run: |stage| Box::pin(fairness::run(stage)),
    },
    Experiment {
        promise: "P31",
        title: "no client holds what others need",
        setups: BOTH,
        engines: Use::Peaceful,
        run: |stage| Box::pin(floods::run(stage)),
    },
    Experiment {
        promise: "P32",
        title: "a damaged copy is found and mended",
        setups: BOTH,
        engines: Use::Peaceful,
        run: |stage| Box::pin(p32::run(stage)),
    },
    Experiment {
        promise: "P33",
        title: "a decoder that was taken over stays alone",
        setups: BOTH,
        engines: Use::Peaceful,
        run: |stage| Box::pin(p33::run(stage)),
    },
    Experiment {
        promise: "P34",
        title: "a soak of days grows nothing",
        setups: BOTH,
        engines: Use::Peaceful,
        run: |stage| Box::pin(p34::run(stage)),
    },
];

impl Experiment {
    /// Its name as a test's: `p1_no_accepted_image_is_lost_none_ends_twice::full`.
    pub fn name(&self, setup: Setup) -> String {
        let words: Vec<_> =
            self.title.split(|letter: char| !letter.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
        let setup = match setup {
            Setup::Embedded => "embedded",
            Setup::Full => "full",
        };
        format!("{}_{}::{setup}", self.promise.to_lowercase(), words.join("_").to_lowercase())
    }

    /// Puts the promise to the proof.
    ///
    /// # Errors
    /// If it is broken, or nothing can be said about it.
    pub async fn run(&self, stage: &Stage) -> anyhow::Result<Counts> {
        (self.run)(stage).await
    }
}
