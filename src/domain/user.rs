//! Users: whoever owns products.

use crate::{
    clock::Timestamp,
    domain::{FieldErrors, Fields, Invalid, Malformed, UserId, product::checked_text},
};

/// A user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Chosen by the caller, or made.
    pub id: UserId,
    /// What people call them.
    pub name: Option<String>,
    /// Where to write to.
    pub email: Option<String>,
    /// When the user was made.
    pub created_at: Timestamp,
}

/// A user as it comes in, unchecked.
#[derive(Clone, Debug, Default)]
pub struct UserDraft {
    /// The id the caller wants.
    pub id: Option<String>,
    /// The name.
    pub name: Option<String>,
    /// The e-mail address.
    pub email: Option<String>,
}

/// A user that may be stored; without an id one is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewUser {
    /// The id the caller wants.
    pub id: Option<UserId>,
    /// 1 to 200 characters.
    pub name: Option<String>,
    /// 3 to 254 characters with one `@` inside.
    pub email: Option<String>,
}

impl NewUser {
    /// Reads a user from a request's body; the outer error is JSON that cannot be read, the inner one wrong fields.
    ///
    /// # Errors
    /// [`Malformed`] if `json` is no object, [`Invalid`] with every wrong field.
    pub fn from_json(json: &[u8]) -> Result<Result<Self, Invalid>, Malformed> {
        let mut fields = Fields::parse(json, &["id", "name", "email"])?;
        let draft = UserDraft { id: fields.text("id"), name: fields.text("name"), email: fields.text("email") };
        Ok(Self::checked(draft, fields.finish()))
    }

    /// Checks a draft.
    ///
    /// # Errors
    /// [`Invalid`] with every wrong field.
    pub fn parse(draft: UserDraft) -> Result<Self, Invalid> {
        Self::checked(draft, FieldErrors::default())
    }

    fn checked(draft: UserDraft, mut errors: FieldErrors) -> Result<Self, Invalid> {
        let mut note = |field: &str, message: String| errors.push(field, message);
        let id = draft.id.and_then(|id| UserId::parse(&id).map_err(|message| note("id", message)).ok());
        let name =
            draft.name.and_then(|name| checked_text(&name, 1, 200).map_err(|message| note("name", message)).ok());
        let email = draft.email.and_then(|email| checked_email(&email).map_err(|message| note("email", message)).ok());
        Invalid::unless_empty(errors, || Self { id, name, email })
    }
}

fn checked_email(text: &str) -> Result<String, String> {
    let email = checked_text(text, 3, 254)?;
    let well_formed =
        email.split_once('@').is_some_and(|(local, host)| !local.is_empty() && !host.is_empty() && !host.contains('@'))
            && !email.contains(char::is_whitespace);
    if well_formed { Ok(email) } else { Err("is not an e-mail address".into()) }
}

/// A page of users, by id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserQuery {
    /// Users per page, 1 to 100.
    pub limit: u64,
    /// Only users whose id sorts after this one.
    pub after: Option<UserId>,
}
