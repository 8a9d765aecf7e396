//! The parameters in a request's path.

/// Parameters by name, not percent-decoded.
#[derive(Clone, Debug, Default)]
pub struct Params(Vec<(&'static str, String)>);

impl Params {
    /// Returns the parameter `name`; empty if the path has none.
    pub fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value)
    }
}

impl FromIterator<(&'static str, String)> for Params {
    fn from_iter<T: IntoIterator<Item = (&'static str, String)>>(pairs: T) -> Self {
        Self(pairs.into_iter().collect())
    }
}
