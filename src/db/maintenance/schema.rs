//! Whether this program and the database's schema fit together.

use crate::db::{Database, Error, migrate};

/// How the schema stands to the steps that this program knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SchemaState {
    /// The database holds no catalogue.
    Missing,
    /// Steps of this program are missing.
    Older {
        /// How many.
        missing: usize,
        /// Steps that this program knows.
        of: usize,
    },
    /// It fits: every step is there. Steps that only a newer program knows may be there as well, if that one allows it.
    Current,
    /// A newer program changed it in a way that this one cannot work with.
    Newer {
        /// The oldest version of `pm` that can.
        needs: String,
    },
}

/// Compares the schema with this program.
///
/// # Errors
/// If the database does not answer.
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

/// Whether the database has a row that says which installation it is.
///
/// # Errors
/// If the database does not answer.
pub async fn has_installation(database: &Database) -> Result<bool, Error> {
    Ok(migrate::holds_installation(&migrate::applied(database).await?))
}

/// A version's numbers, most significant first; what follows them, such as `-rc.1`, is not compared.
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
