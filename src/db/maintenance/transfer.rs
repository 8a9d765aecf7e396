//! Exports and imports whole tables for backups, in the same format on both databases.
//!
//! Values are only texts and integers, like every column of the schema.

use sea_orm::{
    ColumnTrait as _, ConnectionTrait, DbBackend, EntityTrait, IdenStatic as _, Iterable as _, QueryResult, Statement,
    Value as Bound, sea_query::ColumnType,
};
use serde_json::{Map, Value};

use crate::{
    clock::Timestamp,
    db::{
        Database, Error,
        entity::{api_key, image, job, job_attempt, product, rendition, user, variant, webhook},
        migrate,
        statement::{query, query_one},
    },
};

/// A row: its columns by name.
pub type Row = Map<String, Value>;

/// A table that is copied row by row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// The table's name.
    pub name: &'static str,
    columns: Vec<(&'static str, Kind)>,
    /// Whether the database numbers its rows.
    numbered: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Number,
    Text,
}

/// Returns every table in a backup; referenced tables come before the referencing ones.
/// A new table needs one more line here. Cache invalidations, lost leases, clock anchors and migrations belong to one
/// installation and are not backed up.
pub fn tables() -> Vec<Table> {
    vec![
        Table::of::<user::Entity>(),
        Table::of::<api_key::Entity>(),
        Table::of::<product::Entity>(),
        Table::of::<image::Entity>(),
        Table::of::<rendition::Entity>(),
        Table::of::<variant::Entity>(),
        Table::of::<job::Entity>(),
        Table::of::<job_attempt::Entity>(),
        Table::of::<webhook::Entity>(),
    ]
}

impl Table {
    fn of<E: EntityTrait>() -> Self {
        let columns = E::Column::iter().map(|column| {
            let text = matches!(column.def().get_column_type(), ColumnType::String(_) | ColumnType::Text);
            (column.as_str(), if text { Kind::Text } else { Kind::Number })
        });
        let columns: Vec<_> = columns.collect();
        let numbered = columns.contains(&("id", Kind::Number));
        Self { name: E::default().table_name(), columns, numbered }
    }

    /// Returns the names of its columns.
    pub fn columns(&self) -> Vec<&'static str> {
        self.columns.iter().map(|(name, _)| *name).collect()
    }

    /// Returns up to `limit` rows by id, after `after` if it is given.
    pub async fn page(
        &self,
        connection: &impl ConnectionTrait,
        after: Option<&Value>,
        limit: u64,
    ) -> Result<Vec<Row>, Error> {
        let casts = self.columns.iter().map(|(name, kind)| match kind {
            Kind::Number => format!("CAST({name} AS BIGINT) AS {name}"),
            Kind::Text => (*name).to_owned(),
        });
        let columns = casts.collect::<Vec<_>>().join(", ");
        let (condition, values) = match after {
            Some(after) => ("WHERE id > $1 ", vec![bound(after, self.kind("id"))]),
            None => ("", Vec::new()),
        };
        let sql = format!("SELECT {columns} FROM {} {condition}ORDER BY id LIMIT {limit}", self.name);
        query(connection, &sql, values).await?.iter().map(|row| self.read(row)).collect()
    }

    /// Returns the number of rows.
    pub async fn count(&self, connection: &impl ConnectionTrait) -> Result<u64, Error> {
        let sql = format!("SELECT count(*) AS counted FROM {}", self.name);
        let counted: i64 = query_one(connection, &sql, Vec::new()).await?.try_get("", "counted")?;
        Ok(counted.unsigned_abs())
    }

    /// Returns the highest number ever given to a row, even a deleted one.
    /// Returns `None` for a table whose rows the database does not number.
    pub async fn last_number(&self, connection: &impl ConnectionTrait) -> Result<Option<i64>, Error> {
        if !self.numbered {
            return Ok(None);
        }
        let sql = match connection.get_database_backend() {
            DbBackend::Postgres => {
                "SELECT coalesce(pg_sequence_last_value(pg_get_serial_sequence($1, 'id')::regclass), 0) AS last"
            }
            _ => "SELECT coalesce(max(seq), 0) AS last FROM sqlite_sequence WHERE name = $1",
        };
        Ok(Some(query_one(connection, sql, vec![self.name.into()]).await?.try_get("", "last")?))
    }

    /// Returns the first column of `row` that this version does not know.
    pub fn first_unknown<'a>(&self, row: &'a Row) -> Option<&'a str> {
        row.keys().map(String::as_str).find(|name| !self.columns.iter().any(|(known, _)| known == name))
    }

    /// Returns the first column of `row` whose value has the wrong type.
    pub fn first_misfit<'a>(&self, row: &'a Row) -> Option<&'a str> {
        row.iter().map(|(name, value)| (name.as_str(), value)).find_map(|(name, value)| {
            let known = self.columns.iter().find(|(known, _)| *known == name);
            known.is_some_and(|(_, kind)| !fits(value, *kind)).then_some(name)
        })
    }

    /// Inserts rows with their ids; all must have the same columns.
    /// Columns that an older version did not have get their default.
    ///
    /// # Errors
    /// [`Error::Duplicate`] if an id already exists, [`Error::Corrupt`] if a value has the wrong type for its column.
    pub async fn insert(&self, connection: &impl ConnectionTrait, rows: &[Row]) -> Result<(), Error> {
        /// PostgreSQL accepts 65,535 values per statement, SQLite 32,766.
        const MAX_VALUES: usize = 16_000;
        let Some(first) = rows.first() else { return Ok(()) };
        let columns: Vec<_> = self.columns.iter().filter(|(name, _)| first.contains_key(*name)).collect();
        let names = columns.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        for some in rows.chunks((MAX_VALUES / columns.len().max(1)).max(1)) {
            let mut values = Vec::with_capacity(some.len() * columns.len());
            let mut tuples = Vec::with_capacity(some.len());
            for row in some {
                let first = values.len() + 1;
                for (name, kind) in &columns {
                    values.push(self.checked(row.get(*name), *kind, name)?);
                }
                let places: Vec<_> = (first..=values.len()).map(|place| format!("${place}")).collect();
                tuples.push(format!("({})", places.join(", ")));
            }
            let sql = format!("INSERT INTO {} ({names}) VALUES {}", self.name, tuples.join(", "));
            execute(connection, &sql, values).await?;
        }
        Ok(())
    }

    /// Makes the database number new rows after `last`.
    pub async fn number_after(&self, connection: &impl ConnectionTrait, last: i64) -> Result<(), Error> {
        if !self.numbered || last < 1 {
            return Ok(());
        }
        if connection.get_database_backend() == DbBackend::Postgres {
            const SET: &str = "SELECT setval(pg_get_serial_sequence($1, 'id')::regclass, $2)";
            return execute(connection, SET, vec![self.name.into(), last.into()]).await;
        }
        const DELETE: &str = "DELETE FROM sqlite_sequence WHERE name = $1";
        const SET: &str = "INSERT INTO sqlite_sequence (name, seq) VALUES ($1, $2)";
        execute(connection, DELETE, vec![self.name.into()]).await?;
        execute(connection, SET, vec![self.name.into(), last.into()]).await
    }

    fn kind(&self, name: &str) -> Kind {
        self.columns.iter().find(|(known, _)| *known == name).map_or(Kind::Text, |(_, kind)| *kind)
    }

    fn read(&self, row: &QueryResult) -> Result<Row, Error> {
        let value = |(name, kind): &(&'static str, Kind)| {
            let value = match kind {
                Kind::Number => row.try_get::<Option<i64>>("", name)?.map(Value::from),
                Kind::Text => row.try_get::<Option<String>>("", name)?.map(Value::from),
            };
            Ok(((*name).to_owned(), value.unwrap_or(Value::Null)))
        };
        self.columns.iter().map(value).collect()
    }

    fn checked(&self, value: Option<&Value>, kind: Kind, name: &str) -> Result<Bound, Error> {
        match value.filter(|value| fits(value, kind)) {
            Some(value) => Ok(bound(value, kind)),
            None => Err(Error::Corrupt(format!("{}.{name} has the wrong type for its column", self.name))),
        }
    }
}

/// Resets copied rows for another installation.
/// No job or delivery is leased, no job counts as dispatched, and caches are invalidated.
pub async fn take_over(connection: &impl ConnectionTrait, now: Timestamp) -> Result<(), Error> {
    const IMAGES: &str = "UPDATE images SET status = 'pending' WHERE status = 'processing'";
    const JOBS: &str = "UPDATE jobs SET state = 'queued', dispatched_at = NULL, lease_token = NULL, lease_until = NULL,
            decoding = 0, working_on = NULL
        WHERE state IN ('queued', 'running')";
    const CHANGED: &str = "INSERT INTO cache_invalidation (product_id, created_at) SELECT id, $1 FROM products";
    if connection.get_database_backend() == DbBackend::Postgres {
        // No timeout: these statements update whole tables.
        connection.execute_unprepared("SET LOCAL statement_timeout = 0").await?;
    }
    execute(connection, IMAGES, Vec::new()).await?;
    execute(connection, JOBS, Vec::new()).await?;
    execute(connection, CHANGED, vec![now.0.into()]).await
}

/// Returns the names of the applied migrations, oldest first.
pub async fn schema(database: &Database) -> Result<Vec<String>, Error> {
    migrate::applied(database).await
}

fn fits(value: &Value, kind: Kind) -> bool {
    match (value, kind) {
        (Value::Null, _) | (Value::String(_), Kind::Text) => true,
        (number, Kind::Number) => number.is_i64(),
        _ => false,
    }
}

fn bound(value: &Value, kind: Kind) -> Bound {
    match kind {
        Kind::Number => value.as_i64().into(),
        Kind::Text => value.as_str().map(str::to_owned).into(),
    }
}

async fn execute(connection: &impl ConnectionTrait, sql: &str, values: Vec<Bound>) -> Result<(), Error> {
    let statement = Statement::from_sql_and_values(connection.get_database_backend(), sql, values);
    connection.execute_raw(statement).await?;
    Ok(())
}
