//! Permissions of access tokens and API keys: a set of scopes. `admin` includes all others.

use std::fmt;

/// A permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Read the catalog.
    ProductsRead,
    /// Change the principal's own products.
    ProductsWrite,
    /// Everything: the products of all users, users, and the queue.
    Admin,
}

impl Scope {
    /// All scopes.
    pub const ALL: [Self; 3] = [Self::ProductsRead, Self::ProductsWrite, Self::Admin];

    /// Returns the scope's name in tokens, keys and problems.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ProductsRead => "products:read",
            Self::ProductsWrite => "products:write",
            Self::Admin => "admin",
        }
    }

    const fn bit(self) -> u8 {
        match self {
            Self::ProductsRead => 1,
            Self::ProductsWrite => 2,
            Self::Admin => 4,
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A set of scopes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    /// Returns the scopes among `words`; ignores the others, which belong to other services.
    pub fn among<'a>(words: impl IntoIterator<Item = &'a str>) -> Self {
        let known = |word: &str| Scope::ALL.into_iter().find(|scope| scope.as_str() == word);
        words.into_iter().filter_map(known).collect()
    }

    /// Parses all of `words` as scopes; there must be at least one.
    ///
    /// # Errors
    /// A message with the unknown scope.
    pub fn parse<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let mut scopes = Self::default();
        for word in words {
            let one = Self::among([word]);
            if one == Self::default() {
                return Err(format!("has `{word}`, which is not one of products:read, products:write and admin"));
            }
            scopes = Self(scopes.0 | one.0);
        }
        if scopes == Self::default() { Err("must not be empty".into()) } else { Ok(scopes) }
    }

    /// Returns whether the set includes `scope`.
    pub const fn allow(self, scope: Scope) -> bool {
        self.0 & (scope.bit() | Scope::Admin.bit()) != 0
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | scope.bit()))
    }
}

/// Formats the scopes separated by spaces, as in tokens.
impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = Scope::ALL.into_iter().filter(|scope| self.0 & scope.bit() != 0).map(Scope::as_str);
        f.write_str(&words.collect::<Vec<_>>().join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_admin_includes_all_scopes() {
        let admin = Scopes::among(["admin"]);
        assert!(Scope::ALL.into_iter().all(|scope| admin.allow(scope)));
        let write = Scopes::among(["products:write"]);
        assert!(write.allow(Scope::ProductsWrite) && !write.allow(Scope::ProductsRead) && !write.allow(Scope::Admin));
    }

    #[test]
    fn unknown_scopes_are_ignored_in_tokens_and_rejected_in_keys() {
        assert_eq!(Scopes::among(["openid", "products:read", "ADMIN"]).to_string(), "products:read");
        assert!(Scopes::parse(["products:read", "openid"]).expect_err("refused").contains("`openid`"));
        assert!(Scopes::parse([]).is_err());
        assert_eq!(Scopes::parse(["admin", "products:read"]).expect("scopes").to_string(), "products:read admin");
    }
}
