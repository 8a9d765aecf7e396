//! `pm doctor`: checks all components and the integrity of the data.
//!
//! Changes nothing without `--repair`.

mod finding;
mod secrets;

use std::{iter, time::Duration};

use self::finding::{FAILED, Finding, OK, SHOWN, WARNING, chain};
use super::{
    args::{self, Format},
    exit_of,
    failure::{Exit, Failure},
    output::Console,
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
            let mut findings = examine(&app).await;
            findings.extend(of_the_program());
            inspect(&app, depth, &repairs, console, &mut findings).await;
            let exit = finding::exit_of(&findings);
            (findings, exit)
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

async fn examine(app: &App) -> Vec<Finding> {
    let mut components = app.health.check().await;
    // Redis must answer within 50 ms, which a busy machine may miss once.
    for _ in 0..2 {
        if components.iter().all(|component| component.error.is_none()) {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        components = app.health.check().await;
    }
    let mut findings: Vec<_> = components.into_iter().map(Finding::of_component).collect();
    if let Some(way) = app.database.way_of_connecting() {
        let database = findings.iter_mut().find(|finding| finding.check == "database" && finding.status == OK);
        database.into_iter().for_each(|finding| finding.detail = format!("{}; {way}", finding.detail));
    }
    let details = [
        ("schema", schema(app).await),
        ("installation", installation(app).await),
        ("renditions", renditions(app).await),
    ];
    for (check, detail) in details {
        findings.push(match detail {
            Ok(detail) => Finding::ok(check, detail),
            Err(error) => Finding::interrupted(check, &error, error.is_transient()),
        });
    }
    findings.push(isolation(app).await);
    findings.push(secrets::examine(app).await);
    findings
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
async fn inspect(app: &App, depth: Depth, repairs: &Repairs, console: &Console, findings: &mut Vec<Finding>) {
    let mut steps = Steps::new(console.is_quiet());
    for invariant in Invariant::ALL {
        if let Some(reason) = not_here(app, invariant) {
            findings.push(Finding::ok(invariant.name(), reason.into()));
            continue;
        }
        findings.push(match app.catalog.inspect(invariant, depth, &mut |step| steps.show(step)).await {
            Ok(found) if found.broken == 0 => Finding::ok(invariant.name(), whole(&found)),
            Ok(found) => match repairs {
                Repairs::None => Finding::broken(&found),
                Repairs::Made(copies) => repair(app, &found, depth, copies.as_ref(), &mut steps).await,
            },
            Err(error) => Finding::interrupted(invariant.name(), &error, error.is_transient()),
        });
    }
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
        Err(error) => {
            let finding = Finding::interrupted(check, &error, error.is_transient());
            return Finding { detail: format!("the repair failed: {}", finding.detail), ..finding };
        }
    };
    let Repaired { done, left } = repaired;
    let again = app.catalog.inspect(found.invariant, depth, &mut |step| steps.show(step)).await;
    let mut finding = match again {
        Ok(again) if again.broken == 0 => Finding::ok(check, format!("{}; repaired {}", whole(&again), done.len())),
        Ok(again) => Finding::broken(&again),
        Err(error) => Finding::interrupted(check, &error, error.is_transient()),
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
        app::Error::NoCatalog { .. } | app::Error::ReplacedDatabase { .. } => "database",
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
