//! Background workers of a process.
//!
//! The consumer claims jobs, runs their handler under a lease and stores the results. The relay publishes jobs to the
//! broker, and the sweeper maintains the job queue in the database.

mod collector;
mod deliver;
mod lease;
mod load;
mod notifier;
mod relay;
mod report;
mod runner;
mod sweeper;

pub use collector::collect;
pub use deliver::deliver;
pub use notifier::notify_events;
pub use relay::relay;
pub use runner::Worker;
pub use sweeper::sweep;
