//! `pm backup` and `pm restore`: copies the catalog to a directory and back.

use std::path::Path;

use serde::Serialize;

use super::{
    args, ask,
    failure::{Exit, Failure},
    output::{Console, Row},
    progress::Steps,
};
use crate::{
    app::{self, Access, App},
    config::{self, Settings},
    maintenance::backup::{
        self, ApiKeys, Checked, Names, Options, Protection, Restored, Restoring, Saved, Secrets, Verify,
    },
    passphrase::Passphrase,
};

/// The secrets in a backup.
const SECRETS: &str = "webhook secrets, hashes of API keys and the keys that sign variant URLs";

/// Runs `pm backup`; returns [`Exit::Partly`] if the store lacks blobs.
pub(super) async fn save(command: &args::Backup, settings: Settings, console: &mut Console) -> Result<Exit, Failure> {
    let passphrase = passphrase(&command.secrets, &settings)?;
    if passphrase.is_none() && !command.secrets.without_secrets {
        return Err(Failure::new(Exit::Usage, format!("a backup contains {SECRETS}, but no passphrase is set"))
            .hint("set PM_BACKUP_PASSPHRASE or --passphrase-file FILE; --without-secrets omits the secrets"));
    }
    if passphrase.as_ref().is_some_and(|passphrase| !passphrase.is_long_enough()) {
        return Err(too_short(&command.secrets));
    }
    let app = Box::pin(App::open(settings, Access::Existing)).await?;
    let protection = match passphrase {
        Some(passphrase) => {
            Protection::Encrypted { passphrase, url_keys: app.url_keys.as_ref().map(|keys| keys.reveal()).into() }
        }
        None => Protection::LeftOut,
    };
    let verify = if command.verify { Verify::All } else { Verify::Due };
    let mut steps = Steps::new(console.is_quiet());
    let options = Options { verify, replace: command.replace, protection };
    let saved = app.catalog.backup(&command.directory, options, &mut |step| steps.show(step)).await;
    drop(steps);
    let saved = saved?;
    name(console, &saved.mended, "mended: ");
    name(console, &saved.missing, "missing: ");
    if saved.missing.count > 0 {
        console.say(&format!(
            "missing from the store, or damaged: {}; references to them: {}. The backup contains everything else; \
             `pm doctor --repair` repairs the store",
            counted(saved.missing.count, "blob"),
            saved.missing_references
        ));
    }
    if !saved.has_secrets {
        console.say(&format!("not in this backup: {SECRETS}"));
    }
    let exit = if saved.missing_references == 0 { Exit::Done } else { Exit::Partly };
    console.single(&SavedRow::new(&command.directory, saved))?;
    Ok(exit)
}

/// Runs `pm restore`; verifies the backup before it opens or creates anything.
pub(super) async fn restore(
    command: &args::Restore,
    mut settings: Settings,
    console: &mut Console,
) -> Result<Exit, Failure> {
    let mut steps = Steps::new(console.is_quiet());
    let checked = backup::check(&command.directory, &mut |step| steps.show(step)).await;
    drop(steps);
    let checked = checked?;
    let damage = &checked.damage().files;
    name(console, damage, "damaged: ");
    if damage.count > 0 && !command.allow_missing {
        let files = counted(damage.count, "file");
        let reason = format!("the backup has {files} that are damaged, such as {}", example(damage));
        return Err(Failure::new(Exit::Failed, reason).hint(
            "nothing was changed; the next `pm backup` repairs the backup; `pm restore --allow-missing` restores the \
             intact part",
        ));
    }
    let secrets = secrets_of(&checked, &command.secrets, &settings).await?;
    let question = format!(
        "This restores {} products, as they were on {}, into {} and {}.",
        checked.products(),
        checked.created_at(),
        settings.database,
        settings.storage_url
    );
    ask::confirm(&question, command.yes).await?;
    settings.auto_migrate = true;
    let app = Box::pin(App::open(settings, Access::Create)).await?;
    app.catalog.ensure_restorable(&checked).await?;
    if let Some(keys) = secrets.as_ref().and_then(|secrets| secrets.url_keys.reveal().as_deref()) {
        // The keys come before the rows, so that an interrupted restore can be run again.
        if let Some(advice) = app::restore_url_keys(&app, keys).await? {
            console.say(&advice);
        }
    }
    let mut steps = Steps::new(console.is_quiet());
    let api_keys = if command.with_keys { ApiKeys::Restore } else { ApiKeys::LeaveOut };
    let restoring = Restoring { secrets: secrets.as_ref(), api_keys };
    let restored = app.catalog.restore(&checked, restoring, &mut |step| steps.show(step)).await;
    drop(steps);
    let restored = restored?;
    say_what_is_lost(console, &restored);
    for notice in &restored.notices {
        console.say(&format!("warning: {}", config::redact(notice)));
    }
    if restored.keys_left_out > 0 {
        let keys = counted(restored.keys_left_out, "API key");
        console.say(&format!("left out, and revoked here: {keys}; `pm restore --with-keys` restores them"));
    }
    if secrets.is_none() && (checked.lacks_secrets() || command.secrets.without_secrets) {
        console.say("restored without secrets: webhooks are disabled, API keys revoked, earlier signed URLs invalid");
    }
    let exit = if restored.is_whole() && !checked.damage().secrets { Exit::Done } else { Exit::Partly };
    console.single(&RestoredRow(restored))?;
    Ok(exit)
}

fn say_what_is_lost(console: &Console, restored: &Restored) {
    let Restored { missing, queued, replaced, failed, lost_rows, .. } = restored;
    if *lost_rows > 0 {
        console.say(&format!("lost rows, including rows that depended on lost rows: {lost_rows}"));
    }
    if *missing > 0 {
        console.say(&format!(
            "references to lost blobs: {missing}; images queued again from their sources: {queued}; images that now use \
             their largest rendition as the source: {replaced}; failed images (source_not_found): {failed}"
        ));
    }
}

/// Decrypts the secrets of the backup; returns `None` without secrets or with `--without-secrets`.
async fn secrets_of(checked: &Checked, words: &args::Secrets, settings: &Settings) -> Result<Option<Secrets>, Failure> {
    if words.without_secrets || !checked.has_encrypted_secrets() {
        return Ok(None);
    }
    match passphrase(words, settings)? {
        Some(passphrase) => Ok(Some(checked.secrets(passphrase).await?)),
        None => Err(Failure::new(Exit::Usage, format!("the backup contains {SECRETS}, encrypted by a passphrase"))
            .hint("set PM_BACKUP_PASSPHRASE or --passphrase-file FILE; --without-secrets omits the secrets")),
    }
}

fn passphrase(words: &args::Secrets, settings: &Settings) -> Result<Option<Passphrase>, Failure> {
    if words.without_secrets {
        return Ok(None);
    }
    let Some(file) = &words.passphrase_file else { return Ok(settings.backup_passphrase.clone()) };
    let wrong = |error: anyhow::Error| {
        Failure::because(Exit::Usage, error.context(format!("{} cannot be read as a passphrase", file.display())))
    };
    let text = std::fs::read_to_string(file).map_err(|error| wrong(error.into()))?;
    let passphrase = Passphrase::parse(text.trim_end_matches(['\r', '\n']));
    passphrase.map(Some).map_err(|reason| wrong(anyhow::anyhow!("it {reason}")))
}

fn too_short(words: &args::Secrets) -> Failure {
    let place = words.passphrase_file.as_ref().map(|file| format!("the passphrase in {}", file.display()));
    let place = place.unwrap_or_else(|| "PM_BACKUP_PASSPHRASE".into());
    let reason = format!("{place} has fewer than {} characters", Passphrase::MIN_CHARS);
    Failure::new(Exit::Usage, reason).hint("a generated one is safe: `openssl rand -base64 24`; nothing was changed")
}

fn name(console: &Console, names: &Names, word: &str) {
    for file in &names.first {
        console.say(&format!("{word}{file}"));
    }
    let more = names.count.saturating_sub(names.first.len() as u64);
    if more > 0 {
        console.say(&format!("{word}and {more} more"));
    }
}

/// `1 blob`, `2 blobs`.
fn counted(count: u64, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

fn example(names: &Names) -> &str {
    names.first.first().map_or("", String::as_str)
}

impl From<backup::Error> for Failure {
    fn from(error: backup::Error) -> Self {
        match error {
            backup::Error::Catalog(error) => error.into(),
            backup::Error::Refused { hint, .. } => Self::because(Exit::Failed, error).hint(hint),
            backup::Error::Damaged(_) => Self::because(Exit::Failed, error)
                .hint("nothing was changed, and nothing can be restored from this backup; use another one"),
            backup::Error::File { .. } => Self::because(Exit::Failed, error),
        }
    }
}

#[derive(Serialize)]
struct SavedRow {
    directory: String,
    products: u64,
    references: u64,
    copied: u64,
    bytes: u64,
    verified: u64,
    mended: u64,
    mended_files: Vec<String>,
    missing: u64,
    missing_references: u64,
    missing_keys: Vec<String>,
    secrets: &'static str,
}

impl SavedRow {
    fn new(directory: &Path, saved: Saved) -> Self {
        Self {
            directory: directory.display().to_string(),
            products: saved.products,
            references: saved.references,
            copied: saved.copied,
            bytes: saved.bytes,
            verified: saved.verified,
            mended: saved.mended.count,
            mended_files: saved.mended.first,
            missing: saved.missing.count,
            missing_references: saved.missing_references,
            missing_keys: saved.missing.first,
            secrets: if saved.has_secrets { "encrypted" } else { "left out" },
        }
    }
}

impl Row for SavedRow {
    const COLUMNS: &'static [&'static str] = &[
        "directory",
        "products",
        "references to blobs",
        "blobs copied",
        "bytes",
        "blobs verified",
        "files mended",
        "blobs missing",
        "references to missing blobs",
        "secrets",
    ];
    const FIELDS: &'static [&'static str] = &[
        "directory",
        "products",
        "references",
        "copied",
        "bytes",
        "verified",
        "mended",
        "missing",
        "missing_references",
        "secrets",
    ];

    fn id(&self) -> String {
        self.directory.clone()
    }

    fn cells(&self) -> Vec<String> {
        let counts = [
            self.products,
            self.references,
            self.copied,
            self.bytes,
            self.verified,
            self.mended,
            self.missing,
            self.missing_references,
        ];
        let counts = counts.map(|count| count.to_string());
        [self.directory.clone()].into_iter().chain(counts).chain([self.secrets.to_owned()]).collect()
    }

    fn fields(&self) -> Vec<String> {
        self.cells()
    }
}

struct RestoredRow(Restored);

impl RestoredRow {
    fn named(&self) -> [(&'static str, u64); 9] {
        let Restored {
            rows, products, references, missing, queued, replaced, failed, lost_rows, keys_left_out, ..
        } = self.0;
        [
            ("products", products),
            ("rows", rows),
            ("references", references),
            ("missing", missing),
            ("queued", queued),
            ("replaced", replaced),
            ("failed", failed),
            ("lost_rows", lost_rows),
            ("keys_left_out", keys_left_out),
        ]
    }
}

impl Serialize for RestoredRow {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.named())
    }
}

impl Row for RestoredRow {
    const COLUMNS: &'static [&'static str] = &[
        "products",
        "rows",
        "references to blobs",
        "missing",
        "images made again",
        "sources replaced",
        "images failed",
        "rows lost",
        "API keys left out",
    ];
    const FIELDS: &'static [&'static str] =
        &["products", "rows", "references", "missing", "queued", "replaced", "failed", "lost_rows", "keys_left_out"];

    fn id(&self) -> String {
        self.0.products.to_string()
    }

    fn cells(&self) -> Vec<String> {
        self.named().map(|(_, count)| count.to_string()).into()
    }

    fn fields(&self) -> Vec<String> {
        self.cells()
    }
}
