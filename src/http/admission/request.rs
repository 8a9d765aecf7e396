//! Admission of a request: a permit for its body while the body is read, then a permit for the work.
//!
//! A request takes permits only after authorization, and releases both when its response may be sent: when it is in
//! memory, encoded, and has a permit of its own if it is large.

use std::{
    net::IpAddr,
    num::NonZeroUsize,
    sync::{Arc, OnceLock},
    time::Duration,
};

use http::{HeaderValue, StatusCode, header};

use super::{
    body_permits::{BodyPermit, BodyPermits, NoRoom, Room},
    connection_slots::ConnectionSlot,
    permits::{self, Permit, Permits},
};
use crate::{
    code::ErrorCode,
    http::{
        headers::forwarded::{Client, network_of},
        problem::Problem,
    },
};

/// Maximum number of concurrent uploads.
const MAX_UPLOADS: usize = 64;
/// Maximum number of requests that read a few rows at a time, and of those that write. The others wait in the fair
/// queue, not for a database connection or a CPU core, which would not be fair between clients.
const MAX_QUERIES: usize = 12;
/// Maximum number of lists at a time, per CPU core. A list occupies a core for milliseconds and delays each statement
/// of smaller requests.
const MAX_LISTS_PER_CORE: usize = 2;
/// Maximum number of batches at a time: one writes while another is parsed. SQLite has one writer, and other writers
/// wait for it.
const MAX_BATCHES: usize = 2;

/// Maximum wait of a request: longer than a short stall of the database, so that a stall refuses no request.
const MAX_WAIT: Duration = Duration::from_secs(3);
/// Maximum wait of a batch: several of other clients.
const MAX_WAIT_OF_BATCH: Duration = Duration::from_secs(10);

/// The permits that all requests share.
#[derive(Debug)]
pub struct AdmissionControl {
    reads: Permits,
    writes: Permits,
    lists: Permits,
    batches: Permits,
    files: Permits,
    bodies: BodyPermits,
    uploads: BodyPermits,
}

/// The kind of work that a request does. Each has its own permits, so that none waits for a slower kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Reads a few rows of the database.
    Read,
    /// Writes a few rows of the database.
    Write,
    /// Reads many rows.
    List,
    /// Writes many rows.
    Batch,
    /// Reads stored files.
    Files,
}

/// The way a body is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Buffered in memory.
    Gathered,
    /// Streamed to disk or storage.
    Upload,
}

/// The permits of a request.
#[derive(Debug)]
pub struct RequestAdmission {
    admissions: Arc<AdmissionControl>,
    client: IpAddr,
    connection_slot: Arc<ConnectionSlot>,
    needs: Needs,
    body: OnceLock<BodyPermit>,
    place: OnceLock<Permit>,
}

impl AdmissionControl {
    /// Creates the permits of a server.
    ///
    /// `most` limits file requests and bodies, and is the upper bound for other requests. `body_bytes` limits the bytes
    /// of all bodies in memory.
    pub fn new(most: usize, body_bytes: usize) -> Arc<Self> {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let permits = |count: usize, max_wait| Permits::new(most.min(count), max_wait);
        Arc::new(Self {
            reads: permits(MAX_QUERIES, MAX_WAIT),
            writes: permits(MAX_QUERIES, MAX_WAIT),
            lists: permits((cores * MAX_LISTS_PER_CORE).max(4), MAX_WAIT),
            batches: permits(MAX_BATCHES, MAX_WAIT_OF_BATCH),
            files: permits(most, MAX_WAIT),
            bodies: BodyPermits::new(Room { count: most, bytes: body_bytes }),
            uploads: BodyPermits::new(Room { count: MAX_UPLOADS, bytes: usize::MAX }),
        })
    }

    /// Returns the admission of a request from `client`, without permits yet.
    pub fn admission(
        self: &Arc<Self>,
        client: Client,
        connection_slot: Arc<ConnectionSlot>,
        needs: Needs,
    ) -> Arc<RequestAdmission> {
        let (client, body, place) = (network_of(client.address), OnceLock::new(), OnceLock::new());
        Arc::new(RequestAdmission { admissions: Arc::clone(self), client, connection_slot, needs, body, place })
    }
}

impl RequestAdmission {
    /// Returns the admission of a request to an idle server.
    #[cfg(test)]
    pub fn for_tests() -> Arc<Self> {
        let client = Client { address: [127, 0, 0, 1].into(), secure: false };
        AdmissionControl::new(1, usize::MAX).admission(client, ConnectionSlot::for_tests(), Needs::Read)
    }

    /// Returns the client's network.
    pub const fn client(&self) -> IpAddr {
        self.client
    }

    /// Whether the request has its permit to work.
    pub fn is_working(&self) -> bool {
        self.place.get().is_some()
    }

    /// Takes a permit to read a body.
    ///
    /// # Errors
    /// 503 if none is free within a second.
    pub async fn begins_body(&self, kind: Kind) -> Result<(), Problem> {
        let slots = match kind {
            Kind::Gathered => &self.admissions.bodies,
            Kind::Upload => &self.admissions.uploads,
        };
        let slot = slots.take(self.client, 0, Arc::default()).await?;
        // A request has one body.
        let _ = self.body.set(slot);
        Ok(())
    }

    /// Records that the server waits for the next bytes of the body.
    pub fn waits_for_body(&self) {
        self.connection_slot.waits_for_body();
        if let Some(slot) = self.body.get() {
            slot.waits();
        }
    }

    /// Records received bytes, which stay in memory until the response is ready.
    ///
    /// # Errors
    /// 503 if the memory limit is reached.
    pub async fn received(&self, bytes: usize) -> Result<(), Problem> {
        self.passed_on(bytes);
        match self.body.get() {
            Some(slot) => Ok(slot.grow(bytes).await?),
            None => Ok(()),
        }
    }

    /// Records received bytes that do not stay in memory, or the end of the body.
    pub fn passed_on(&self, bytes: usize) {
        self.connection_slot.works();
        if let Some(slot) = self.body.get() {
            slot.works(bytes);
        }
    }

    /// Returns a 408 problem when this body loses its permit to another request; waits until then.
    pub async fn loses_body(&self) -> Problem {
        match self.body.get() {
            Some(slot) => slot.lost().await,
            None => std::future::pending().await,
        }
        let detail = "the server is busy and stopped reading this body, because it arrived too slowly";
        Problem::new(StatusCode::REQUEST_TIMEOUT, ErrorCode::DeadlineExceeded, detail)
            .with_header(header::CONNECTION, HeaderValue::from_static("close"))
    }

    /// Waits for the permit to process the request.
    ///
    /// # Errors
    /// 503 if none is free in time, or if the client's bodies take the memory that others need.
    pub async fn works(&self) -> Result<(), Problem> {
        self.connection_slot.works();
        if self.place.get().is_some() {
            return Ok(());
        }
        let places = match self.needs {
            Needs::Read => &self.admissions.reads,
            Needs::Write => &self.admissions.writes,
            Needs::List => &self.admissions.lists,
            Needs::Batch => &self.admissions.batches,
            Needs::Files => &self.admissions.files,
        };
        let place = places.take_soon(permits::From::new(self.client, &self.connection_slot), "are in progress");
        let place = match self.body.get() {
            None => place.await?,
            Some(slot) => {
                slot.queues();
                let place = tokio::select! {
                    place = place => place?,
                    () = slot.lost() => return Err(NoRoom.into()),
                };
                slot.works(0);
                place
            }
        };
        // Calls for a request do not overlap, so no permit is set yet.
        let _ = self.place.set(place);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn client(address: &str) -> Client {
        Client { address: address.parse().expect("an address"), secure: false }
    }

    fn admission(admissions: &Arc<AdmissionControl>, address: &str) -> Arc<RequestAdmission> {
        admissions.admission(client(address), ConnectionSlot::for_tests(), Needs::Read)
    }

    #[tokio::test]
    async fn a_request_waits_up_to_three_seconds_for_its_permit() {
        let admissions = AdmissionControl::new(1, 1_000);
        let working = admission(&admissions, "127.0.0.1");
        working.works().await.expect("a permit");
        let waiting = admission(&admissions, "127.0.0.1");
        assert_eq!(waiting.works().await.expect_err("refused").head().status(), 503);
        let next = tokio::spawn(async move { waiting.works().await.is_ok() });
        tokio::time::sleep(Duration::from_millis(500)).await;
        drop(working);
        assert!(next.await.expect("no panic"));
    }

    #[tokio::test]
    async fn a_body_in_memory_is_counted_until_its_request_ends() {
        let admissions = AdmissionControl::new(8, 100 << 10);
        let first = admission(&admissions, "192.0.2.1");
        first.begins_body(Kind::Gathered).await.expect("a permit");
        first.received(80 << 10).await.expect("a permit");
        first.works().await.expect("a permit");
        let second = admission(&admissions, "192.0.2.2");
        second.begins_body(Kind::Gathered).await.expect("a permit");
        assert_eq!(second.received(80 << 10).await.expect_err("refused").head().status(), 503);
        drop(first);
        second.received(80 << 10).await.expect("a permit");
    }
}
