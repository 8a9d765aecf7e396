//! `pm doctor`: whether everything that a set-up consists of is there and answers. It changes nothing.

use serde::Serialize;

use super::{
    args::Format,
    failure::{Exit, Failure},
    output::{Console, Row},
    serve::own_program,
};
use crate::{
    app::{self, App},
    config::Settings,
    db::{self, migrate, renditions},
    health::Component,
    imaging,
    isolation::{self, Decoders},
};

/// Runs the command; `as_json` is the API's way of writing it, whatever `--output` says.
pub(super) async fn run(mut settings: Settings, as_json: bool, console: &mut Console) -> Result<Exit, Failure> {
    // An old schema is a finding here, not something to be mended in passing.
    settings.auto_migrate = false;
    let (mut findings, exit) = match Box::pin(App::build(settings)).await {
        Ok(app) => examine(&app.isolated_by(own_program())).await,
        Err(error) => {
            let exit = if error.is_transient() { Exit::Unreachable } else { Exit::Failed };
            (vec![Finding::failed(part_of(&error), chain(&error))], exit)
        }
    };
    findings.push(Finding::ok("imaging", imaging_detail()));
    show(&findings, as_json, console)?;
    Ok(exit)
}

fn show(findings: &[Finding], as_json: bool, console: &mut Console) -> std::io::Result<()> {
    if as_json || console.format() == Format::Json {
        let healthy = findings.iter().all(|finding| finding.status == OK);
        return console.json_line(&serde_json::json!({ "healthy": healthy, "checks": findings }));
    }
    let mut list = console.list();
    list.page(findings)?;
    list.finish(None)
}

async fn examine(app: &App) -> (Vec<Finding>, Exit) {
    let components = app.health.check().await;
    let unreachable = components.iter().any(|component| component.error.is_some());
    let mut findings: Vec<_> = components.into_iter().map(Finding::of_component).collect();
    let mut exit = if unreachable { Exit::Unreachable } else { Exit::Done };
    for (check, detail) in [("schema", schema(app).await), ("renditions", renditions(app).await)] {
        findings.push(match detail {
            Ok(detail) => Finding::ok(check, detail),
            Err(error) => {
                exit = Exit::Unreachable;
                Finding::failed(check, chain(&error))
            }
        });
    }
    let isolation = isolation(app).await;
    if isolation.status == FAILED && exit == Exit::Done {
        exit = Exit::Failed;
    }
    findings.push(isolation);
    (findings, exit)
}

/// What a decoder is locked in by: one is started to try it out.
async fn isolation(app: &App) -> Finding {
    const CHECK: &str = "isolation";
    let decoders = Decoders::new(app.isolation(1));
    if !app.settings.isolation {
        return Finding::ok(CHECK, "off: pictures are decoded in the worker's own process".into());
    }
    match decoders.walls().await {
        Ok(walls) => Finding::ok(CHECK, walls_detail(&walls)),
        Err(error) => Finding::failed(CHECK, chain(&error)),
    }
}

fn walls_detail(walls: &isolation::Walls) -> String {
    let (standing, missing) = walls.names();
    let missing = if missing.is_empty() { "none".into() } else { missing.join(", ") };
    format!("walls around decoders: {}; missing on this system: {missing}", standing.join(", "))
}

async fn schema(app: &App) -> Result<String, db::Error> {
    let steps = migrate::status(&app.database).await?;
    Ok(format!("{} steps, all applied", steps.len()))
}

async fn renditions(app: &App) -> Result<String, db::Error> {
    let shared = renditions::sharing(&app.database.read()).await?;
    Ok(format!("{} stored, in {} blobs", shared.renditions, shared.blobs))
}

fn imaging_detail() -> String {
    let encoder = if imaging::JPEG_BACKEND == "turbo" { "libjpeg" } else { "Rust alone" };
    format!("JPEG backend {}: read in Rust, written by {encoder}", imaging::JPEG_BACKEND)
}

/// Which part of the set-up an error of the start is about.
const fn part_of(error: &app::Error) -> &'static str {
    match error {
        app::Error::Database(_) => "database",
        app::Error::OldSchema { .. } => "schema",
        app::Error::Cache(_) => "cache",
        app::Error::Queue(_) => "queue",
        app::Error::Storage(_) => "storage",
        app::Error::Fetcher(_) => "downloads",
        app::Error::Setting(_) | app::Error::DataDirectory { .. } => "settings",
    }
}

/// An error with its causes, each once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut told = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let sentence = next.to_string();
        if !told.contains(&sentence) {
            told = format!("{told}: {sentence}");
        }
        cause = next.source();
    }
    told
}

const OK: &str = "ok";
const FAILED: &str = "failed";

#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    status: &'static str,
    detail: String,
}

impl Finding {
    const fn ok(check: &'static str, detail: String) -> Self {
        Self { check, status: OK, detail }
    }

    const fn failed(check: &'static str, detail: String) -> Self {
        Self { check, status: FAILED, detail }
    }

    fn of_component(component: Component) -> Self {
        let Component { name, engine, error, latency, .. } = component;
        match error {
            None => Self::ok(name, format!("{engine}, answers in {:.1} ms", latency.as_secs_f64() * 1e3)),
            Some(error) => Self::failed(name, format!("{engine}: {error}")),
        }
    }
}

impl Row for Finding {
    const COLUMNS: &'static [&'static str] = &["check", "status", "detail"];
    const FIELDS: &'static [&'static str] = &["check", "status", "detail"];

    fn id(&self) -> String {
        format!("{} {}", self.check, self.status)
    }

    fn cells(&self) -> Vec<String> {
        self.fields()
    }

    fn fields(&self) -> Vec<String> {
        vec![self.check.into(), self.status.into(), self.detail.clone()]
    }
}
