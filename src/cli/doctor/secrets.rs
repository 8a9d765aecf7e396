//! Checks that a configured key decrypts each webhook secret.

use super::finding::{Finding, SHOWN};
use crate::{app::App, domain::WebhookId};

const CHECK: &str = "secrets";

/// Lists the webhooks with secrets that no key decrypts.
pub(super) async fn examine(app: &App) -> Finding {
    let state = match app.catalog.secret_state().await {
        Ok(state) => state,
        Err(error) => return Finding::interrupted(CHECK, &error, error.is_transient()),
    };
    if !state.locked.is_empty() {
        let detail = format!(
            "no key decrypts the secrets of webhooks {}, so their messages wait: append the key that encrypted them to \
             PM_SECRET_KEY after a comma, or delete these webhooks and add them again",
            names(&state.locked)
        );
        let examples = state.locked.iter().map(ToString::to_string).collect();
        return Finding { count: state.locked.len() as u64, examples, ..Finding::failed(CHECK, detail) };
    }
    let plain = match state.plain.len() {
        0 => "all are encrypted".to_owned(),
        _ => format!(
            "not encrypted: those of webhooks {}; the next start with PM_SECRET_KEY encrypts them",
            names(&state.plain)
        ),
    };
    Finding::ok(CHECK, format!("{} webhook secrets; {plain}", state.count))
}

fn names(ids: &[WebhookId]) -> String {
    let shown: Vec<_> = ids.iter().take(SHOWN).map(ToString::to_string).collect();
    let more = if ids.len() > SHOWN { ", …" } else { "" };
    format!("{}{more}", shown.join(", "))
}
