//! Exact prices: integers of 1/10,000, parsed from the client's digits without a binary float.

use std::fmt;

use rust_decimal::Decimal;
use serde::{Serialize, Serializer, ser::Error as _};
use serde_json::value::RawValue;

/// A price from 0 to 999,999,999,999.9999 in steps of 1/10,000. It compares and sorts as an integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, utoipa::ToSchema)]
#[schema(value_type = f64, minimum = 0, exclusive_maximum = 1_000_000_000_000_u64, example = 19.99)]
pub struct Price(i64);

impl Price {
    /// Decimal places.
    pub const SCALE: u32 = 4;
    /// Maximum price.
    pub const MAX: Self = Self(9_999_999_999_999_999);

    /// Parses a decimal number such as `100`, `19.99` or `1e2`.
    ///
    /// # Errors
    /// A message: not a number, negative, over the maximum, or with more than 4 decimal places.
    pub fn parse(digits: &str) -> Result<Self, String> {
        let exponent = digits.contains(['e', 'E']);
        let plain = digits.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'+' | b'e' | b'E'));
        let parsed = if !plain {
            None
        } else if exponent {
            Decimal::from_scientific(digits).ok()
        } else {
            Decimal::from_str_exact(digits).ok()
        };
        let Some(value) = parsed.map(|value| value.normalize()) else {
            let kind = if plain && digits.len() > 20 { "has too many digits" } else { "is not a decimal number" };
            return Err(format!(
                "{kind}; from 0 to {} with at most {} decimal places are allowed",
                Self::MAX,
                Self::SCALE
            ));
        };
        if value.is_sign_negative() && !value.is_zero() {
            return Err("must not be negative".into());
        }
        if value > Decimal::new(Self::MAX.0, Self::SCALE) {
            return Err(format!("must be at most {}", Self::MAX));
        }
        if value.scale() > Self::SCALE {
            return Err(format!("has {} decimal places; at most {} are allowed", value.scale(), Self::SCALE));
        }
        let units = value.mantissa() * 10_i128.pow(Self::SCALE - value.scale());
        i64::try_from(units).map(Self).map_err(|_| format!("must be at most {}", Self::MAX))
    }

    /// Returns the stored integer, in units of 1/10,000.
    pub const fn units(self) -> i64 {
        self.0
    }

    /// Wraps a price from the database.
    pub(crate) const fn from_units(units: i64) -> Self {
        Self(units)
    }
}

/// Formats with at least one decimal place and no further trailing zeros: `100.0`, `19.99`, `0.0001`.
impl fmt::Display for Price {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fraction = format!("{:04}", self.0 % 10_000);
        let kept = fraction.trim_end_matches('0');
        write!(f, "{}.{}", self.0 / 10_000, if kept.is_empty() { "0" } else { kept })
    }
}

/// Serializes as a JSON number with exactly the digits of [`fmt::Display`].
impl Serialize for Price {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        RawValue::from_string(self.to_string()).map_err(S::Error::custom)?.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_price_is_parsed_from_usual_notations() {
        for (digits, units) in [
            ("100.0", 1_000_000),
            ("0", 0),
            ("-0", 0),
            ("1e2", 1_000_000),
            ("1.5E-3", 15),
            ("19.990000", 199_900),
            ("900719925474.0993", 9_007_199_254_740_993),
            ("999999999999.9999", Price::MAX.0),
        ] {
            assert_eq!(Price::parse(digits), Ok(Price(units)), "{digits}");
        }
    }

    #[test]
    fn invalid_prices_are_rejected() {
        for digits in
            ["", "-1", "NaN", "inf", "1.00001", "1000000000000", "1e30", "1e-30", "0x10", "1_000", " 1", "1,5"]
        {
            assert!(Price::parse(digits).is_err(), "{digits} was taken");
        }
    }

    proptest! {
        #[test]
        fn a_displayed_price_parses_to_the_same_value(units in 0..=Price::MAX.0) {
            let price = Price(units);
            prop_assert_eq!(Price::parse(&price.to_string()), Ok(price));
            prop_assert_eq!(serde_json::to_string(&price).expect("a number"), price.to_string());
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,40}") {
            let _ = Price::parse(&text);
        }
    }
}
