//! `pm doctor`: checks all components and the integrity of the data.
//!
//! Changes nothing without `--repair`.

mod secrets;

use std::{iter, time::Duration};

use serde::Serialize;

use super::{
    args::{self, Format},
    exit_of,
    failure::{Exit, Failure},
    output::{Console, Row},
    progress::Steps,
    sandbox::{self, own_program},
};
use crate::{
    app::{self, Access, App},
    blobs::Blobs,
    config::Settings,
    db::{
        connection::installation::{self, Installation},
        migrate,
        products::renditions,
    },
    health::Component,
    imaging,
    isolation::{Decoders, Policy},
    maintenance::{self, Depth, Invariant, Repair, Repaired, backup},
};

/// Runs the command.
pub(super) async fn run(settings: Settings, command: &args::Doctor, console: &mut Console) -> Result<Exit, Failure> {
    let depth = if command.quick { Depth::Quick } else { Depth::Full };
    let copies = match &command.from {
        Some(directory) => Some(backup::copies_in(directory).await?),
        None => None,
    };
    let repairs = if command.repair { Repairs::Made(copies) } else { Repairs::None };
    let (findings, exit) = match Box::pin(App::open(settings, Access::Existing)).await {
        Ok(app) => {
            let app = app.isolated_by(own_program());
            let (mut findings, exit) = examine(&app).await;
            findings.extend(of_the_program());
            let whole = inspect(&app, depth, &repairs, console, &mut findings).await;
            // An unreachable component determines the exit code, not its data.
            (findings, if exit == Exit::Done { whole } else { exit })
        }
        Err(error) => {
            let exit = exit_of(&error);
            let failed = Finding::failed(part_of(&error), chain(&error));
            (iter::once(failed).chain(of_the_program()).collect(), exit)
        }
    };
    show(&findings, command.json, console)?;
    Ok(exit)
}

fn show(findings: &[Finding], as_json: bool, console: &mut Console) -> std::io::Result<()> {
    if as_json || console.format() == Format::Json {
        let healthy = findings.iter().all(|finding| finding.status != FAILED);
        return console.json_line(&serde_json::json!({ "healthy": healthy, "checks": findings }));
    }
    let mut list = console.list();
    list.page(findings)?;
    list.finish(None)
}

async fn examine(app: &App) -> (Vec<Finding>, Exit) {
    let mut components = app.health.check().await;
    // Redis must answer within 50 ms, which a busy machine may miss once.
    for _ in 0..2 {
        if components.iter().all(|component| component.error.is_none()) {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        components = app.health.check().await;
    }
    let unreachable = components.iter().any(|component| component.error.is_some());
    let mut findings: Vec<_> = components.into_iter().map(Finding::of_component).collect();
    if let Some(way) = app.database.way_of_connecting() {
        let database = findings.iter_mut().find(|finding| finding.check == "database" && finding.status == OK);
        database.into_iter().for_each(|finding| finding.detail = format!("{}; {way}", finding.detail));
    }
    let mut exit = if unreachable { Exit::Unreachable } else { Exit::Done };
    let details = [
        ("schema", schema(app).await),
        ("installation", installation(app).await),
        ("renditions", renditions(app).await),
    ];
    for (check, detail) in details {
        findings.push(match detail {
            Ok(detail) => Finding::ok(check, detail),
            Err(error) => {
                let transient = error.is_transient();
                exit = if transient || exit == Exit::Unreachable { Exit::Unreachable } else { Exit::Failed };
                Finding::failed(check, chain(&error))
            }
        });
    }
    let isolation = isolation(app).await;
    if isolation.status == FAILED && exit == Exit::Done {
        exit = Exit::Failed;
    }
    findings.push(isolation);
    let secrets = secrets::examine(app).await;
    if secrets.status == FAILED && exit == Exit::Done {
        exit = Exit::Failed;
    }
    findings.push(secrets);
    (findings, exit)
}

/// Starts a decoder and reports its sandbox layers.
async fn isolation(app: &App) -> Finding {
    const CHECK: &str = "isolation";
    let decoders = Decoders::new(&app.isolation(1));
    let policy = app.settings.isolation;
    if policy == Policy::Off {
        return Finding::ok(CHECK, "off: the worker's own process decodes images".into());
    }
    match decoders.layers().await {
        Ok(layers) if layers.are_complete() => Finding::ok(CHECK, sandbox::detail(policy, &layers)),
        Ok(layers) if policy == Policy::Require => Finding::failed(CHECK, sandbox::detail(policy, &layers)),
        Ok(layers) => Finding { status: WARNING, ..Finding::ok(CHECK, sandbox::detail(policy, &layers)) },
        Err(error) => Finding::failed(CHECK, chain(&error)),
    }
}

/// Whether to repair findings, and from which copies.
enum Repairs {
    None,
    Made(Option<Blobs>),
}

/// Checks every invariant of the data, and repairs violations on request.
async fn inspect(app: &App, depth: Depth, repairs: &Repairs, console: &Console, findings: &mut Vec<Finding>) -> Exit {
    let (mut exit, mut repaired) = (Exit::Done, false);
    let mut steps = Steps::new(console.is_quiet());
    for invariant in Invariant::ALL {
        if let Some(reason) = not_here(app, invariant) {
            findings.push(Finding::ok(invariant.name(), reason.into()));
            continue;
        }
        findings.push(match app.catalog.inspect(invariant, depth, &mut |step| steps.show(step)).await {
            Ok(found) if found.broken == 0 => Finding::ok(invariant.name(), whole(&found)),
            Ok(found) => {
                let finding = match repairs {
                    Repairs::None => Finding::broken(&found),
                    Repairs::Made(copies) => repair(app, &found, depth, copies.as_ref(), &mut steps).await,
                };
                repaired |= !finding.repaired.is_empty();
                if finding.status != OK && exit == Exit::Done {
                    exit = Exit::Failed;
                }
                finding
            }
            Err(error) => {
                exit = if error.is_transient() { Exit::Unreachable } else { Exit::Failed };
                Finding::failed(invariant.name(), chain(&error))
            }
        });
    }
    if exit == Exit::Failed && repaired { Exit::Partly } else { exit }
}

/// Repairs a finding and checks the invariant again.
async fn repair(
    app: &App,
    found: &maintenance::Finding,
    depth: Depth,
    copies: Option<&Blobs>,
    steps: &mut Steps,
) -> Finding {
    let check = found.invariant.name();
    let repaired = match app.catalog.repair(found, copies, &mut |step| steps.show(step)).await {
        Ok(repaired) => repaired,
        Err(error) => return Finding::failed(check, format!("the repair failed: {}", chain(&error))),
    };
    let Repaired { done, left } = repaired;
    let again = app.catalog.inspect(found.invariant, depth, &mut |step| steps.show(step)).await;
    let mut finding = match again {
        Ok(again) if again.broken == 0 => Finding::ok(check, format!("{}; repaired {}", whole(&again), done.len())),
        Ok(again) => Finding::broken(&again),
        Err(error) => Finding::failed(check, chain(&error)),
    };
    for Repair { what, how } in done.iter().chain(&left).take(SHOWN) {
        finding.detail.push_str(&format!("; {what}: {how}"));
    }
    Finding { repaired: done, left, ..finding }
}

/// Returns why an invariant does not apply to this installation.
fn not_here(app: &App, invariant: Invariant) -> Option<&'static str> {
    match invariant {
        Invariant::Outbox if !app.catalog.has(invariant) => Some("no broker: workers poll the database"),
        Invariant::Invalidations if !app.catalog.has(invariant) => Some("no shared cache"),
        Invariant::Entries if !app.catalog.has(invariant) => Some("no cache"),
        Invariant::Entries if app.settings.redis_url.is_none() => Some("each process has its own cache"),
        _ => None,
    }
}

/// Returns the detail of a check without findings.
fn whole(found: &maintenance::Finding) -> String {
    let count = found.looked_at;
    match found.invariant {
        Invariant::Images => format!("{count} images: each is final or has exactly one live job"),
        Invariant::Blobs => format!("{count} blobs exist and match their keys"),
        Invariant::Sources => format!("{count} uploaded files exist and match their keys"),
        Invariant::Orphans => format!("{count} blobs are referenced, or too young to delete"),
        Invariant::Unfinished => "no unfinished files".into(),
        Invariant::Outbox => "all due jobs were published to the broker".into(),
        Invariant::Invalidations => "no pending cache invalidations".into(),
        Invariant::Leases => "no lease belongs to a dead worker".into(),
        Invariant::Entries => format!("{count} cached products match their rows"),
    }
}

/// Returns the problem of a violated invariant and its remedy.
const fn remedy(invariant: Invariant) -> (&'static str, &'static str) {
    match invariant {
        Invariant::Images => {
            ("images are neither final nor have one live job", "`pm doctor --repair` queues them again")
        }
        Invariant::Blobs => (
            "blobs are missing or do not match their keys",
            "`pm doctor --repair` queues their images again; `--from DIR` copies them from a backup",
        ),
        Invariant::Sources => {
            ("uploaded files are missing or damaged", "`pm doctor --repair --from DIR` copies them from a backup")
        }
        Invariant::Orphans => ("old blobs are not referenced", "`pm gc` or `pm doctor --repair` removes them"),
        Invariant::Unfinished => {
            ("unfinished files of killed processes", "`pm gc` or `pm doctor --repair` removes them")
        }
        Invariant::Outbox => (
            "due jobs were not published to the broker",
            "a running `pm serve` or `pm worker`, or `pm doctor --repair`, publishes them",
        ),
        Invariant::Invalidations => (
            "pending cache invalidations",
            "a running `pm serve` or `pm worker`, or `pm doctor --repair`, applies them",
        ),
        Invariant::Leases => (
            "jobs have leases of dead workers",
            "a running `pm serve` or `pm worker`, or `pm doctor --repair`, requeues them",
        ),
        Invariant::Entries => (
            "cached products differ from their rows",
            "`pm doctor --repair` deletes the entries; use the same PM_PUBLIC_URL and version in all processes",
        ),
    }
}

async fn schema(app: &App) -> Result<String, app::Error> {
    let steps = migrate::status(&app.database).await?;
    let missing = steps.iter().filter(|step| !step.applied).count();
    if missing > 0 {
        Err(app::Error::OldSchema { missing, of: steps.len() })
    } else {
        let unknown = steps.iter().filter(|step| !step.known).count();
        let newer = if unknown > 0 { format!(", {unknown} of them by a newer pm") } else { String::new() };
        Ok(format!("{} migrations, all applied{newer}", steps.len()))
    }
}

async fn installation(app: &App) -> Result<String, app::Error> {
    let Installation { id, blob_store, cache, .. } = installation::read(&app.database.read()).await?;
    let store = blob_store.as_deref().unwrap_or("none yet");
    let cache = match (app.settings.redis_url.is_some(), cache.server) {
        (false, _) => String::new(),
        (true, Some(server)) => format!("; cache epoch {} of the Redis server {server}", cache.number),
        (true, None) => format!("; cache epoch {}, closed", cache.number),
    };
    Ok(format!("{id}; blob store {store}{cache}"))
}

async fn renditions(app: &App) -> Result<String, app::Error> {
    let shared = renditions::sharing(&app.database.read()).await?;
    Ok(format!("{} stored, in {} blobs", shared.renditions, shared.blobs))
}

/// Returns the findings about the program itself.
fn of_the_program() -> Vec<Finding> {
    vec![Finding::ok("imaging", imaging_detail())]
}

fn imaging_detail() -> String {
    let encoder = if imaging::JPEG_BACKEND == "turbo" { "libjpeg" } else { "Rust alone" };
    format!("JPEG backend {}: read in Rust, written by {encoder}", imaging::JPEG_BACKEND)
}

/// Returns the component that an error of opening the app concerns.
const fn part_of(error: &app::Error) -> &'static str {
    match error {
        app::Error::Database(_) => "database",
        app::Error::NoCatalogue { .. } | app::Error::ReplacedDatabase { .. } => "database",
        app::Error::OldSchema { .. } | app::Error::NewSchema { .. } => "schema",
        app::Error::ForeignStore { .. } | app::Error::CopiedDatabase { .. } => "installation",
        app::Error::Cache(_) => "cache",
        app::Error::Queue(_) => "queue",
        app::Error::Storage(_) => "storage",
        app::Error::Fetcher(_) => "downloads",
        app::Error::Tls(_) => "certificate",
        app::Error::Auth(_) => "authentication",
        app::Error::Setting(_) | app::Error::DataDirectory { .. } => "settings",
    }
}

/// Formats an error and its causes, each once.
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
/// The check passed with a restriction.
const WARNING: &str = "warning";
const FAILED: &str = "failed";
/// Maximum number of examples and repairs in a detail.
const SHOWN: usize = 5;

#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    status: &'static str,
    detail: String,
    /// Number of rows, blobs or entries that violate the invariant.
    count: u64,
    /// Up to 100 of them.
    examples: Vec<String>,
    /// What was repaired.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    repaired: Vec<Repair>,
    /// What could not be repaired.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    left: Vec<Repair>,
}

impl Finding {
    const fn ok(check: &'static str, detail: String) -> Self {
        Self { check, status: OK, detail, count: 0, examples: Vec::new(), repaired: Vec::new(), left: Vec::new() }
    }

    fn failed(check: &'static str, detail: String) -> Self {
        Self { status: FAILED, ..Self::ok(check, detail) }
    }

    fn broken(found: &maintenance::Finding) -> Self {
        let (wrong, help) = remedy(found.invariant);
        let count = found.broken;
        let shown = &found.examples[..found.examples.len().min(SHOWN)];
        let more = if count > shown.len() as u64 { ", …" } else { "" };
        let detail = format!("{count} {wrong}: {}{more}; {help}", shown.join(", "));
        Self { count, examples: found.examples.clone(), ..Self::failed(found.invariant.name(), detail) }
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
    const FIELDS: &'static [&'static str] = &["check", "status", "detail", "count", "examples"];

    fn id(&self) -> String {
        format!("{} {}", self.check, self.status)
    }

    fn cells(&self) -> Vec<String> {
        vec![self.check.into(), self.status.into(), self.detail.clone()]
    }

    fn fields(&self) -> Vec<String> {
        let mut fields = self.cells();
        fields.extend([self.count.to_string(), self.examples.join(" ")]);
        fields
    }
}
