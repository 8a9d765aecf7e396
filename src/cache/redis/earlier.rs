//! Compatibility with programs from before installation ids, during a rolling upgrade.
//!
//! They know no epochs and continue to read their own entries.

use super::{
    super::Error,
    connection::Link,
    epoch::Epochs,
    live::{KEYS_A_COMMAND, Server, answer},
};
use crate::domain::ProductId;

/// The schema number in the keys of these programs.
const EARLIER_SCHEMA: u32 = 1;

impl Link {
    /// Deletes the entries that programs from before installation ids have for these products.
    /// Their writes change the epoch repeatedly, so a settled connection exists only for moments. This method opens its
    /// own connection.
    pub(super) async fn delete_for_earlier_programs(&self, ids: &[ProductId]) -> Result<(), Error> {
        let mut connection = self.connect().await?;
        let server = Server::ask(&mut connection).await?;
        let prefix = self.earlier_key_prefix(&server);
        for some in ids.chunks(KEYS_A_COMMAND) {
            let keys: Vec<_> = some.iter().map(|id| format!("{prefix}{id}")).collect();
            answer::<u64>(redis::cmd("DEL").arg(keys), &mut connection).await?;
        }
        Ok(())
    }

    pub(super) fn earlier_key_prefix(&self, server: &Server) -> String {
        format!("{}:{EARLIER_SCHEMA}:{}:p:", self.prefix, server.run_id)
    }

    /// Returns whether programs from before installation ids currently read and write.
    pub(super) fn earlier_programs_write(&self) -> bool {
        self.epochs.as_ref().is_some_and(Epochs::earlier_programs_write)
    }
}
