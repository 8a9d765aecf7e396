//! Whether a key opens each secret of a webhook.

use super::{Finding, SHOWN, chain};
use crate::{app::App, domain::WebhookId};

const CHECK: &str = "secrets";

/// Names the webhooks whose secrets no key opens.
pub(super) async fn examine(app: &App) -> Finding {
    let state = match app.catalog.secret_state().await {
        Ok(state) => state,
        Err(error) => return Finding::failed(CHECK, chain(&error)),
    };
    if !state.locked.is_empty() {
        let detail = format!(
            "no key opens the secrets of webhooks {}, whose messages wait: set PM_SECRET_KEY to the key that encrypted them, \
             after the present one and a comma, or delete these webhooks and add them again",
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
