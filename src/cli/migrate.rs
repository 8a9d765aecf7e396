//! `pm migrate`: the database's schema.

use serde::Serialize;

use super::{
    args::Migrate,
    ask,
    failure::{Exit, Failure},
    output::{Console, Row},
};
use crate::{
    app,
    config::Settings,
    db::{
        self, Database,
        migrate::{self, Step},
    },
};

/// Runs one of the commands.
pub(super) async fn run(command: Migrate, settings: &Settings, console: &mut Console) -> Result<Exit, Failure> {
    let database = app::open_database(settings).await?;
    let lost = |what: &str| format!("{what} of {}, with all that it holds.", settings.database);
    match command {
        Migrate::Up => up(&database, console).await?,
        Migrate::Down { steps, yes } => {
            ask::confirm(&lost(&format!("This takes back the last {steps} steps of the schema")), yes).await?;
            migrate::down(&database, Some(steps)).await.map_err(failed)?;
            console.say("taken back");
        }
        Migrate::Status => status(&migrate::status(&database).await.map_err(failed)?, console)?,
        Migrate::Fresh { yes } => {
            ask::confirm(&lost("This deletes the schema"), yes).await?;
            migrate::down(&database, None).await.map_err(failed)?;
            up(&database, console).await?;
        }
    }
    Ok(Exit::Done)
}

async fn up(database: &Database, console: &Console) -> Result<(), Failure> {
    let before = migrate::status(database).await.map_err(failed)?;
    let missing = before.iter().filter(|step| !step.applied).count();
    migrate::up(database, None).await.map_err(failed)?;
    console.say(&match missing {
        0 => "the schema is up to date".to_owned(),
        1 => "1 step applied".to_owned(),
        _ => format!("{missing} steps applied"),
    });
    Ok(())
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
