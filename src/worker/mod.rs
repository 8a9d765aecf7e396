//! Consumers: learn of a job, claim it, run its handler under a lease, store what became of it. Also what keeps the queue
//! of record moving: the relay to the broker and the sweeper.

mod collector;
mod deliver;
mod herald;
mod lease;
mod load;
mod relay;
mod report;
mod runner;
mod sweeper;

pub use collector::collect;
pub use deliver::deliver;
pub use herald::herald;
pub use relay::relay;
pub use runner::Worker;
pub use sweeper::sweep;
