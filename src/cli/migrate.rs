//! `pm migrate`: the database's schema.

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

/// Runs one of the commands.
pub(super) async fn run(command: Migrate, settings: &Settings, console: &mut Console) -> Result<Exit, Failure> {
    let makes = matches!(command, Migrate::Up | Migrate::Fresh { .. });
    let database = app::open_database(settings, makes).await?;
    if !matches!(command, Migrate::Status) {
        ensure_known(&database).await?;
        app::settle_identity(&database, false).await?;
    }
    let lost = |what: &str| format!("{what} of {}, with all that it holds.", place(settings));
    match command {
        Migrate::Up => up(&database, settings, console).await?,
        Migrate::Down { steps, yes } => {
            ask::confirm(&lost(&format!("This takes back the last {steps} steps of the schema")), yes).await?;
            down(&database, steps, settings).await?;
            console.say(&format!("{}: {} taken back", place(settings), steps_of(steps.into())));
        }
        Migrate::Status => status(&database, console).await?,
        Migrate::Fresh { yes } => {
            ask::confirm(&lost("This deletes the schema"), yes).await?;
            fresh(&database, settings, console).await?;
        }
    }
    Ok(Exit::Done)
}

/// Refuses a schema that a newer version changed, before anything is asked or done.
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
    let released = app::release_store(settings, database).await?;
    migrate::down(database, None).await.map_err(failed)?;
    up(database, settings, console).await?;
    app::take_store(settings, database, released.as_ref()).await?;
    if settings.redis_url.is_some() {
        // Running processes still answer from the cache of the deleted data for this long.
        tokio::time::sleep(cache::SETTLING).await;
    }
    Ok(())
}

/// `1 step`, `2 steps`.
fn steps_of(count: u64) -> String {
    if count == 1 { "1 step".into() } else { format!("{count} steps") }
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

/// Lists the steps, and says which version of `pm` the schema needs if this one does not know all of them.
async fn status(database: &Database, console: &mut Console) -> Result<(), Failure> {
    let steps = migrate::status(database).await.map_err(failed)?;
    let rows: Vec<_> = steps.iter().map(StepRow::new).collect();
    let mut list = console.list();
    list.page(&rows)?;
    list.finish(None)?;
    match ensure_known(database).await {
        Err(error @ (app::Error::NewSchema { .. } | app::Error::Database(db::Error::NewerSchema(_)))) => {
            // The steps were listed, so this is a notice and no error.
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
