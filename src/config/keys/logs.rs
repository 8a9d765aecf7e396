//! Settings of log output.

use super::Key;

pub(super) const KEYS: &[Key] = &[
    Key::new("log", &["PM_LOG", "RUST_LOG"], "info,sqlx=error,sea_orm_migration=warn,lapin=off")
        .doc(
            "Log filter: a level, also for single modules. By default, commands other than `serve` and `worker` log \
            only warnings and errors.",
        )
        .allowed("error, warn, info, debug, trace or off, also by module: info,pm::worker=debug"),
    Key::new("log_format", &["PM_LOG_FORMAT"], "auto")
        .doc("`pretty`, `json`, or `auto`: pretty on a terminal, JSON elsewhere.")
        .allowed("auto, pretty or json")
        .flag("--log-format", None),
];
