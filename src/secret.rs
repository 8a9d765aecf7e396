//! A value that logs and error messages must not contain.
//!
//! Unlike the type of the crate `secrecy` it can be compared, which settings need.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A secret value. `Debug` does not show it, and there is no `Display`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret<T>(T);

impl<T> Secret<T> {
    /// Wraps a secret.
    pub const fn new(secret: T) -> Self {
        Self(secret)
    }

    /// Returns the secret, to use it or to show it to its owner.
    pub const fn reveal(&self) -> &T {
        &self.0
    }

    /// Returns the secret, to change it.
    pub const fn reveal_mut(&mut self) -> &mut T {
        &mut self.0
    }

    /// Unwraps the secret.
    pub fn into_revealed(self) -> T {
        self.0
    }
}

impl<T: Serialize> Secret<T> {
    /// Serializes the secret in plain text: for `#[serde(serialize_with)]`, which shows where this happens.
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize_revealed<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Secret<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(deserializer).map(Self)
    }
}

impl<T> From<T> for Secret<T> {
    fn from(secret: T) -> Self {
        Self(secret)
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_does_not_contain_the_secret() {
        let secret = Secret::new("whsec_1".to_owned());
        assert_eq!(format!("{secret:?} {:?}", Some(&secret)), "*** Some(***)");
        assert_eq!(secret.reveal(), "whsec_1");
    }
}
