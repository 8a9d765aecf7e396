//! Database maintenance: table transfer, invariants, database identity, and schema checks.

pub mod identity;
pub mod invariants;
pub mod schema;
pub mod transfer;
