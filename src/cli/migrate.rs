//! `pm migrate`: the database's schema.

use serde::Serialize;

use super::{
    args::Migrate,
    ask,
    failure::{Exit, Failure},
    output::{Console, Row},
};
use crate::{
    app, cache,
    config::{DatabaseUrl, Settings},
    db::{
        self, Database,
        migrate::{self, Step},
        schema::{self, SchemaState},
    },
};

/// Runs one of the commands.
pub(super) async fn run(command: Migrate, settings: &Settings, console: &mut Console) -> Result<Exit, Failure> {
    let makes = matches!(command, Migrate::Up | Migrate::Fresh { .. });
    let database = app::open_database(settings, makes).await?;
    if !matches!(command, Migrate::Status) {
        app::settle_identity(&database, false).await?;
    }
    let lost = |what: &str| format!("{what} of {}, with all that it holds.", place(settings));
    match command {
        Migrate::Up => up(&database, settings, console).await?,
        Migrate::Down { steps, yes } => {
            ask::confirm(&lost(&format!("This takes back the last {steps} steps of the schema")), yes).await?;
            down(&database, steps, settings).await?;
            console.say(&format!("{}: {steps} steps taken back", place(settings)));
        }
        Migrate::Status => status(&migrate::status(&database).await.map_err(failed)?, console)?,
        Migrate::Fresh { yes } => {
            ask::confirm(&lost("This deletes the schema"), yes).await?;
            fresh(&database, settings, console).await?;
        }
    }
    Ok(Exit::Done)
}

async fn up(database: &Database, settings: &Settings, console: &Console) -> Result<(), Failure> {
    if let SchemaState::Newer { needs } = schema::state(database).await.map_err(failed)? {
        return Err(app::Error::NewSchema { needs }.into());
    }
    let before = migrate::status(database).await.map_err(failed)?;
    let missing = before.iter().filter(|step| !step.applied).count();
    migrate::up(database, None).await.map_err(failed)?;
    let done = match missing {
        0 => "the schema is up to date".to_owned(),
        1 => "1 step applied".to_owned(),
        _ => format!("{missing} steps applied"),
    };
    console.say(&format!("{}: {done}", place(settings)));
    Ok(())
}

/// Takes back the last `steps`. Where the installation's id goes with them, its blob store is anybody's.
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

/// Deletes everything and makes a new installation, with an id of its own, so that no cache outlives its data.
async fn fresh(database: &Database, settings: &Settings, console: &Console) -> Result<(), Failure> {
    if let SchemaState::Newer { needs } = schema::state(database).await.map_err(failed)? {
        return Err(app::Error::NewSchema { needs }.into());
    }
    app::release_store(settings, database).await?;
    migrate::down(database, None).await.map_err(failed)?;
    up(database, settings, console).await?;
    app::take_store(settings, database).await?;
    if settings.redis_url.is_some() {
        // Running processes still answer from the cache of the deleted data for this long.
        tokio::time::sleep(cache::SETTLING).await;
    }
    Ok(())
}

/// The database, for people: without a password, and with the whole path of a file.
fn place(settings: &Settings) -> String {
    match &settings.database {
        DatabaseUrl::Sqlite { path } => {
            let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
            format!("sqlite://{}", path.display())
        }
        database @ DatabaseUrl::Postgres { .. } => database.to_string(),
    }
}

fn status(steps: &[Step], console: &mut Console) -> Result<(), Failure> {
    let rows: Vec<_> = steps.iter().map(StepRow::new).collect();
    let mut list = console.list();
    list.page(&rows)?;
    Ok(list.finish(None)?)
}

fn failed(error: db::Error) -> Failure {
    app::Error::from(error).into()
}

#[derive(Serialize)]
struct StepRow<'a> {
    step: &'a str,
    applied: bool,
}

impl<'a> StepRow<'a> {
    fn new(step: &'a Step) -> Self {
        Self { step: &step.name, applied: step.applied }
    }
}

impl Row for StepRow<'_> {
    const COLUMNS: &'static [&'static str] = &["step", "applied"];
    const FIELDS: &'static [&'static str] = &["step", "applied"];

    fn id(&self) -> String {
        self.step.to_owned()
    }

    fn cells(&self) -> Vec<String> {
        vec![self.step.to_owned(), if self.applied { "yes".into() } else { "no".into() }]
    }

    fn fields(&self) -> Vec<String> {
        vec![self.step.to_owned(), self.applied.to_string()]
    }
}
