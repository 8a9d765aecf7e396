//! Lists all settings with their values and sources, for `pm config`.

use std::{collections::BTreeMap, fmt};

use super::{Settings, Source, keys::Key, secret::redact};

impl Settings {
    /// Returns the name, value and source of every setting, in the order of `docs/CONFIG.md`, with passwords masked.
    ///
    /// Durations and sizes are as they were set, such as `1h` and `512 MiB`.
    pub fn entries(&self) -> Vec<(&'static str, String, &Source)> {
        let mut values = self.values();
        let keys = Key::all().filter_map(|key| values.remove(key.name).map(|value| (key.name, value)));
        keys.map(|(name, value)| (name, value, self.source(name))).collect()
    }

    fn values(&self) -> BTreeMap<&'static str, String> {
        let none = |value: &Option<String>| value.as_deref().map(redact).unwrap_or_default();
        let hidden = |is_set: bool| if is_set { "***".to_owned() } else { String::new() };
        let presets: Vec<_> = self.presets.iter().map(|preset| preset.name.as_str()).collect();
        let values = [
            ("data_dir", self.data_dir.display().to_string()),
            ("database_url", self.database.to_string()),
            ("auto_migrate", self.auto_migrate.to_string()),
            ("redis_url", none(&self.redis_url)),
            ("redis_prefix", self.redis_prefix.clone()),
            ("rabbitmq_url", none(&self.rabbitmq_url)),
            ("rabbitmq_queue", self.rabbitmq_queue.clone()),
            ("storage_url", redact(&self.storage_url)),
            ("storage_adopt", self.storage_adopt.to_string()),
            ("listen", self.listen.to_string()),
            ("public_url", none(&self.public_url)),
            ("url_key", hidden(self.url_key.is_some())),
            ("secret_key", hidden(self.secret_key.is_some())),
            ("backup_passphrase", hidden(self.backup_passphrase.is_some())),
            ("placeholder", self.placeholder.as_str().to_owned()),
            ("auto_users", self.auto_users.to_string()),
            ("workers", self.workers.to_string()),
            ("worker_listen", self.worker_listen.map(|address| address.to_string()).unwrap_or_default()),
            ("max_waiting_jobs_per_user", self.max_waiting_jobs_per_user.to_string()),
            ("image_max_pixels", self.image_max_pixels.to_string()),
            ("isolation", self.isolation.to_string()),
            ("image_effort", self.image_effort.as_str().to_owned()),
            ("log", self.log.clone()),
            ("log_format", format!("{:?}", self.log_format).to_lowercase()),
            ("presets", presets.join(", ")),
        ];
        let parts = self.database_connections.entries().into_iter().chain(self.security.entries());
        let measures = self.measures.iter().map(|(name, text)| (*name, text.clone()));
        values.into_iter().chain(parts).chain(self.fetching.entries()).chain(measures).collect()
    }
}

/// Masks passwords, and omits the `AWS_*` variables.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.entries().into_iter().map(|(name, value, _)| (name, value))).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Flags, load};

    fn entries(environment: &[(&str, &str)]) -> Vec<(&'static str, String)> {
        let environment = environment.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        let directory = tempfile::tempdir().expect("a directory");
        let settings = load(&Flags::default(), Path::new(directory.path()), environment).expect("right settings");
        settings.entries().into_iter().map(|(name, value, _)| (name, value)).collect()
    }

    #[test]
    fn every_setting_of_a_file_is_listed_in_the_declared_order() {
        let names: Vec<_> = entries(&[]).into_iter().map(|(name, _)| name).collect();
        let declared: Vec<_> = Key::of_files().map(|key| key.name).collect();
        assert_eq!(names, declared);
    }

    #[test]
    fn defaults_are_listed_as_a_file_has_them() {
        for (name, value) in entries(&[]) {
            let default = Key::find(name).expect("a setting").default;
            // These values depend on the machine or on other settings; a table is listed by its names.
            if default != "auto" && !default.contains(['{', '\n']) {
                assert_eq!(value, if default == "[]" { "" } else { default }, "{name}");
            }
        }
    }

    #[test]
    fn durations_and_sizes_are_listed_as_they_were_set() {
        let set = [("PM_GC_EVERY", "90m"), ("PM_IMAGE_MEMORY", "1GiB"), ("PM_HSTS", "365d"), ("PM_KEEPALIVE", "")];
        let entries = entries(&set);
        for expected in [("gc_every", "90m"), ("image_memory", "1GiB"), ("hsts", "365d"), ("keepalive", "75s")] {
            assert!(entries.contains(&(expected.0, expected.1.to_owned())), "{entries:?}");
        }
    }
}
