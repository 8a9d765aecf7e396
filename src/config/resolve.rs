//! Takes each setting from the highest layer that has it, and collects all errors.

use std::collections::BTreeMap;

use super::{
    keys::Key,
    layers::{Layer, Problem, Raw, Source},
    secret::redact,
};

/// Resolves settings from the layers, lowest first.
pub(super) struct Resolver<'a> {
    layers: &'a [Layer],
    /// The errors found so far.
    pub problems: Vec<Problem>,
    /// The source of each setting.
    pub sources: BTreeMap<&'static str, Source>,
    /// The texts of durations and sizes; empty if not set.
    pub measures: BTreeMap<&'static str, String>,
}

impl<'a> Resolver<'a> {
    /// Creates a resolver; `layers` begins with the defaults.
    pub(super) fn new(layers: &'a [Layer]) -> Self {
        Self { layers, problems: Vec::new(), sources: BTreeMap::new(), measures: BTreeMap::new() }
    }

    /// Returns the index of the highest layer with a value for `name`; the defaults have index 0.
    pub(super) fn rank(&self, name: &str) -> Option<usize> {
        self.layers.iter().rposition(|layer| layer.values.get(name).is_some_and(|raw| !raw.is_empty()))
    }

    /// Parses the setting `name`, which has a default; an empty value selects the default.
    pub(super) fn take<T>(&mut self, name: &'static str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        self.take_raw(name, |raw| match raw {
            Raw::Text(text) => parse(text),
            Raw::Table(_) => Err("is a table".into()),
        })
    }

    /// Parses the setting `name`; returns `Some(None)` if it is not set.
    pub(super) fn optional<T>(
        &mut self,
        name: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<Option<T>> {
        match self.found(name) {
            Some((_, raw)) if !raw.is_empty() => self.take(name, parse).map(Some),
            _ => {
                self.note_measure(name, "");
                self.sources.insert(name, self.layers.first().map_or(Source::Default, |layer| layer.source.clone()));
                Some(None)
            }
        }
    }

    /// Parses the setting `name` from text or a table.
    pub(super) fn take_raw<T>(
        &mut self,
        name: &'static str,
        parse: impl FnOnce(&Raw) -> Result<T, String>,
    ) -> Option<T> {
        let (source, raw) = self.found(name)?;
        self.sources.insert(name, source.clone());
        if let Raw::Text(text) = raw {
            self.note_measure(name, text);
        }
        match parse(raw) {
            Ok(value) => Some(value),
            Err(reason) => {
                self.problems.push(problem(name, source, raw, &reason));
                None
            }
        }
    }

    /// Stores the text of a duration or a size.
    fn note_measure(&mut self, name: &'static str, text: &str) {
        if Key::find(name).is_some_and(|key| key.measure) {
            self.measures.insert(name, text.to_owned());
        }
    }

    /// Adds an error for the setting `name`, because it conflicts with another setting.
    pub(super) fn add_conflict(&mut self, name: &'static str, reason: &str) {
        if let Some((source, raw)) = self.found(name) {
            self.problems.push(problem(name, source, raw, reason));
        }
    }

    fn found(&self, name: &str) -> Option<(&'a Source, &'a Raw)> {
        let highest = self.layers.iter().rev().find(|layer| layer.values.contains_key(name))?;
        let chosen = if highest.values[name].is_empty() { self.layers.first()? } else { highest };
        chosen.values.get(name).map(|raw| (&chosen.source, raw))
    }
}

fn problem(name: &str, source: &Source, raw: &Raw, reason: &str) -> Problem {
    let key = Key::find(name).expect("every setting that is resolved has its names");
    let value = match raw {
        // A value that may contain a password is not shown, even masked: masking may fail on a malformed value.
        Raw::Text(text) if !key.secret => format!("is `{}`, which {reason}", redact(text)),
        _ => reason.to_owned(),
    };
    Problem {
        source: source.clone(),
        name: source.spells(key),
        message: format!("{value}; allowed is {}", key.allowed),
    }
}
