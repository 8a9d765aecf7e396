//! Identity of the installation's database, and the installation it was copied from. A copied database is another
//! installation.

crate::step! {
    "m0021_installation_identity",
    up: [
        "ALTER TABLE installation ADD COLUMN database_identity {text}",
        "ALTER TABLE installation ADD COLUMN copied_from {text}",
    ],
    down: [
        "ALTER TABLE installation DROP COLUMN copied_from",
        "ALTER TABLE installation DROP COLUMN database_identity",
    ]
}
