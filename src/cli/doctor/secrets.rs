//! Checks that each webhook secret is encrypted, and that a configured key decrypts it.

use super::finding::{Finding, SHOWN};
use crate::{app::App, domain::WebhookId};

const CHECK: &str = "secrets";

/// Lists the webhooks with secrets that no key decrypts, or that are not encrypted.
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
    if !state.plain.is_empty() {
        let remedy = if app.catalog.encrypts_secrets() {
            "the next start of `pm serve`, or `pm migrate up`, encrypts them"
        } else {
            "set PM_SECRET_KEY to at least 32 characters in every process and restart"
        };
        let detail = format!("the database contains unencrypted secrets of webhooks {}; {remedy}", names(&state.plain));
        let examples = state.plain.iter().map(ToString::to_string).collect();
        return Finding { count: state.plain.len() as u64, examples, ..Finding::warning(CHECK, detail) };
    }
    Finding::ok(CHECK, format!("{} webhook secrets; all are encrypted", state.count))
}

fn names(ids: &[WebhookId]) -> String {
    let shown: Vec<_> = ids.iter().take(SHOWN).map(ToString::to_string).collect();
    let more = if ids.len() > SHOWN { ", …" } else { "" };
    format!("{}{more}", shown.join(", "))
}
