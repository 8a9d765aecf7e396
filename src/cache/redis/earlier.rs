//! Programs from before installation ids beside this one, as while several processes are upgraded one by one: they know no
//! epochs and go on reading their own entries.

use super::{
    super::Error,
    connection::Link,
    epoch::Epochs,
    live::{KEYS_A_COMMAND, Server, answer},
};
use crate::domain::ProductId;

/// The number under which they keep their entries.
const EARLIER_SCHEMA: u32 = 1;

impl Link {
    /// Deletes what programs before installation ids keep of these products. Their writes move the epoch again and again, so that there
    /// is a settled connection for moments only: this takes one of its own.
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

    /// Whether programs before installation ids read and write beside this one.
    pub(super) fn earlier_programs_write(&self) -> bool {
        self.epochs.as_ref().is_some_and(Epochs::earlier_programs_write)
    }
}
