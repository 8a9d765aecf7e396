//! `pm migrate`: migrates the database schema.

use serde::Serialize;

use super::{
    args::Migrate,
    ask,
    failure::{Exit, Failure},
    output::{Console, Row},
};
use crate::{
    app, cache, catalog,
    config::{DatabaseUrl, Settings},
    db::{
        self, Database,
        maintenance::schema::{self, SchemaState},
        migrate::{self, Step},
    },
};

/// Runs the command.
pub(super) async fn run(command: Migrate, settings: &Settings, console: &mut Console) -> Result<Exit, Failure> {
    let makes = matches!(command, Migrate::Up | Migrate::Fresh { .. });
    let database = app::open_database(settings, makes).await?;
    if !matches!(command, Migrate::Status) {
        ensure_known(&database).await?;
        app::settle_identity(&database, false).await?;
    }
    let lost = |what: &str| format!("{what} of {}, including all data in it.", place(settings));
    match command {
        Migrate::Up => up(&database, settings, console).await?,
        Migrate::Down { steps, yes } => {
            ask::confirm(&lost(&format!("This reverts the last {steps} migrations")), yes).await?;
            down(&database, steps, settings).await?;
            console.say(&format!("{}: {} reverted", place(settings), steps_of(steps.into())));
        }
        Migrate::Status => status(&database, console).await?,
        Migrate::Fresh { yes } => {
            ask::confirm(&lost("This deletes the schema"), yes).await?;
            fresh(&database, settings, console).await?;
        }
    }
    Ok(Exit::Done)
}

/// Refuses a schema that a newer version migrated.
async fn ensure_known(database: &Database) -> Result<(), app::Error> {
    if let SchemaState::Newer { needs } = schema::state(database).await? {
        return Err(app::Error::NewSchema { needs });
    }
    migrate::ensure_known(database).await?;
    Ok(())
}

async fn up(database: &Database, settings: &Settings, console: &Console) -> Result<(), Failure> {
    let before = migrate::status(database).await.map_err(failed)?;
    let missing = before.iter().filter(|step| !step.applied).count();
    migrate::up(database, None).await.map_err(failed)?;
    app::settle_identity(database, true).await?;
    if let Some(keys) = app::secret_keys(settings, false).await? {
        catalog::encrypt_secrets(database, &keys).await.map_err(failed)?;
    }
    let done = match missing {
        0 => "the schema is up to date".to_owned(),
        _ => format!("{} applied", steps_of(missing as u64)),
    };
    console.say(&format!("{}: {done}", place(settings)));
    Ok(())
}

/// Reverts the last `steps` migrations.
///
/// If this deletes the installation's id, another installation may take the blob store.
async fn down(database: &Database, steps: u32, settings: &Settings) -> Result<(), Failure> {
    let store = app::own_store(settings, database).await?;
    migrate::down(database, Some(steps)).await.map_err(failed)?;
    if let Some(store) = store
        && !schema::has_installation(database).await.map_err(failed)?
    {
        store.unmark().await.map_err(app::Error::from)?;
    }
    Ok(())
}

/// Deletes all data and creates a new installation.
///
/// Its new id prevents caches from serving deleted data.
async fn fresh(database: &Database, settings: &Settings, console: &Console) -> Result<(), Failure> {
    let released = app::release_store(settings, database).await?;
    migrate::down(database, None).await.map_err(failed)?;
    up(database, settings, console).await?;
    app::take_store(settings, database, released.as_ref()).await?;
    if settings.redis_url.is_some() {
        // Running processes may serve deleted data from the cache for this long.
        tokio::time::sleep(cache::SETTLING).await;
    }
    Ok(())
}

/// Formats a count: `1 migration`, `2 migrations`.
fn steps_of(count: u64) -> String {
    if count == 1 { "1 migration".into() } else { format!("{count} migrations") }
}

/// Returns the database URL for messages: without a password, with an absolute path.
fn place(settings: &Settings) -> String {
    match &settings.database {
        DatabaseUrl::Sqlite { path } => {
            let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
            format!("sqlite://{}", path.display())
        }
        database @ DatabaseUrl::Postgres { .. } => database.to_string(),
    }
}

/// Lists the migrations, and reports the version of pm that the schema needs if this one is too old.
async fn status(database: &Database, console: &mut Console) -> Result<(), Failure> {
    let steps = migrate::status(database).await.map_err(failed)?;
    let rows: Vec<_> = steps.iter().map(StepRow::new).collect();
    let mut list = console.list();
    list.page(&rows)?;
    list.finish(None)?;
    match ensure_known(database).await {
        Err(error @ (app::Error::NewSchema { .. } | app::Error::Database(db::Error::NewerSchema(_)))) => {
            // The list is complete, so this is a notice and no error.
            let notice = Failure::from(error).to_string();
            console.say(notice.trim_start_matches("error: ").trim_end());
            Ok(())
        }
        outcome => Ok(outcome?),
    }
}

fn failed(error: db::Error) -> Failure {
    app::Error::from(error).into()
}

#[derive(Serialize)]
struct StepRow<'a> {
    step: &'a str,
    applied: bool,
    known: bool,
}

impl<'a> StepRow<'a> {
    fn new(step: &'a Step) -> Self {
        Self { step: &step.name, applied: step.applied, known: step.known }
    }
}

fn yes_or_no(yes: bool) -> String {
    if yes { "yes".into() } else { "no".into() }
}

impl Row for StepRow<'_> {
    const COLUMNS: &'static [&'static str] = &["step", "applied", "known to this pm"];
    const FIELDS: &'static [&'static str] = &["step", "applied", "known"];

    fn id(&self) -> String {
        self.step.to_owned()
    }

    fn cells(&self) -> Vec<String> {
        vec![self.step.to_owned(), yes_or_no(self.applied), yes_or_no(self.known)]
    }

    fn fields(&self) -> Vec<String> {
        vec![self.step.to_owned(), self.applied.to_string(), self.known.to_string()]
    }
}
