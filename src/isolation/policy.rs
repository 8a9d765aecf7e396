//! Isolation policy (`PM_ISOLATION`).

use std::fmt;

/// Which sandbox layers decoders must have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Decode only if every sandbox layer is active.
    Require,
    /// Use every sandbox layer that the system has.
    #[default]
    BestEffort,
    /// Decode on threads of this process.
    Off,
}

impl Policy {
    /// Parses `require`, `best-effort`, `off` or a boolean: true means `best-effort`, false means `off`.
    pub fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "require" => Some(Self::Require),
            "best-effort" | "true" | "1" | "yes" | "on" => Some(Self::BestEffort),
            "off" | "false" | "0" | "no" => Some(Self::Off),
            _ => None,
        }
    }

    /// Returns the setting's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Require => "require",
            Self::BestEffort => "best-effort",
            Self::Off => "off",
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn booleans_mean_best_effort_and_off() {
        for policy in [Policy::Require, Policy::BestEffort, Policy::Off] {
            assert_eq!(Policy::parse(policy.as_str()), Some(policy));
        }
        for (text, policy) in [("true", Policy::BestEffort), ("1", Policy::BestEffort), ("False", Policy::Off)] {
            assert_eq!(Policy::parse(text), Some(policy));
        }
        assert_eq!(Policy::parse("perhaps"), None);
    }
}
