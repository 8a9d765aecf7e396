//! Checks whether this program is compatible with the database's schema.

use crate::db::{Database, Error, migrate};

/// State of the schema compared with this program's migrations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SchemaState {
    /// The database has no catalog.
    Missing,
    /// The schema lacks migrations of this program.
    Older {
        /// Number of missing migrations.
        missing: usize,
        /// Number of migrations that this program knows.
        of: usize,
    },
    /// The schema has every migration.
    /// It may also have migrations of a newer program that this one is allowed to work with.
    Current,
    /// A newer program changed the schema, and this one cannot use it.
    Newer {
        /// The oldest version of `pm` that can use it.
        needs: String,
    },
}

/// Compares the schema with this program.
pub async fn state(database: &Database) -> Result<SchemaState, Error> {
    let applied = migrate::applied(database).await?;
    let known = migrate::known();
    if applied.is_empty() {
        return Ok(SchemaState::Missing);
    }
    if applied.iter().any(|name| !known.contains(name)) {
        let needs = migrate::needed_program(database, &applied).await?;
        if let Some(needs) = needs.filter(|needs| version(needs) > version(env!("CARGO_PKG_VERSION"))) {
            return Ok(SchemaState::Newer { needs });
        }
    }
    let missing = known.iter().filter(|name| !applied.contains(name)).count();
    Ok(if missing == 0 { SchemaState::Current } else { SchemaState::Older { missing, of: known.len() } })
}

/// Returns whether the database identifies its installation.
pub async fn has_installation(database: &Database) -> Result<bool, Error> {
    Ok(migrate::holds_installation(&migrate::applied(database).await?))
}

/// Parses a version's numbers, most significant first; a suffix such as `-rc.1` is ignored.
fn version(text: &str) -> Vec<u64> {
    let numbers = text.split(['-', '+']).next().unwrap_or(text);
    numbers.split('.').map(|number| number.parse().unwrap_or(0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_their_numbers() {
        assert!(version("0.10.0") > version("0.9.12"));
        assert!(version("1.0.0") > version("0.99.0"));
        assert_eq!(version("1.2.0-rc.1"), version("1.2.0"));
    }
}
