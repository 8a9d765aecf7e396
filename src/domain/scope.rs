//! What a caller may do, as access tokens and API keys say it: a few words, of which `admin` stands for all.

use std::fmt;

/// One thing that a caller may be allowed to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Read the catalogue.
    ProductsRead,
    /// Change one's own products.
    ProductsWrite,
    /// Everything, with everybody's products, users and the queue.
    Admin,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 3] = [Self::ProductsRead, Self::ProductsWrite, Self::Admin];

    /// The word in tokens, keys and problems.
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
    /// The scopes among `words`. A token's other words are meant for other services and are passed over.
    pub fn among<'a>(words: impl IntoIterator<Item = &'a str>) -> Self {
        let known = |word: &str| Scope::ALL.into_iter().find(|scope| scope.as_str() == word);
        words.into_iter().filter_map(known).collect()
    }

    /// Takes every one of `words` as a scope; there must be one.
    ///
    /// # Errors
    /// A sentence that names the word that is none.
    pub fn parse<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let mut scopes = Self::default();
        for word in words {
            let one = Self::among([word]);
            if one == Self::default() {
                return Err(format!("has `{word}`, which is none of products:read, products:write and admin"));
            }
            scopes = Self(scopes.0 | one.0);
        }
        if scopes == Self::default() { Err("must not be empty".into()) } else { Ok(scopes) }
    }

    /// Whether the holder may do what `scope` stands for.
    pub const fn allow(self, scope: Scope) -> bool {
        self.0 & (scope.bit() | Scope::Admin.bit()) != 0
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | scope.bit()))
    }
}

/// The words with a space between them, as tokens have them.
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
    fn admin_stands_for_every_scope_and_no_other_does() {
        let admin = Scopes::among(["admin"]);
        assert!(Scope::ALL.into_iter().all(|scope| admin.allow(scope)));
        let write = Scopes::among(["products:write"]);
        assert!(write.allow(Scope::ProductsWrite) && !write.allow(Scope::ProductsRead) && !write.allow(Scope::Admin));
    }

    #[test]
    fn a_tokens_other_words_are_passed_over_and_a_keys_are_refused() {
        assert_eq!(Scopes::among(["openid", "products:read", "ADMIN"]).to_string(), "products:read");
        assert!(Scopes::parse(["products:read", "openid"]).expect_err("refused").contains("`openid`"));
        assert!(Scopes::parse([]).is_err());
        assert_eq!(Scopes::parse(["admin", "products:read"]).expect("scopes").to_string(), "products:read admin");
    }
}
