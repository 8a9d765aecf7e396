//! What looking after a database needs: whole tables, questions about invariants, which database this is, and its schema.

pub mod identity;
pub mod invariants;
pub mod schema;
pub mod transfer;
