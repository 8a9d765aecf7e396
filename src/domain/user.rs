//! Users, who own products.

use crate::{
    clock::Timestamp,
    domain::{FieldErrors, Fields, Invalid, Malformed, UserId, product::checked_text},
};

/// A user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The id, chosen by the client or generated.
    pub id: UserId,
    /// A display name.
    pub name: Option<String>,
    /// The e-mail address.
    pub email: Option<String>,
    /// The creation time.
    pub created_at: Timestamp,
}

/// An unchecked user of a request.
#[derive(Clone, Debug, Default)]
pub struct UserDraft {
    /// The requested id.
    pub id: Option<String>,
    /// The name.
    pub name: Option<String>,
    /// The e-mail address.
    pub email: Option<String>,
}

/// A checked user to store; its id is generated if absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewUser {
    /// The requested id.
    pub id: Option<UserId>,
    /// 1 to 200 characters.
    pub name: Option<String>,
    /// 3 to 254 characters with an `@` inside.
    pub email: Option<String>,
}

impl NewUser {
    /// Parses a user from a request body.
    ///
    /// # Errors
    /// [`Malformed`] if `json` is no object; [`Invalid`], the inner error, with all invalid fields.
    pub fn from_json(json: &[u8]) -> Result<Result<Self, Invalid>, Malformed> {
        let mut fields = Fields::parse(json, &["id", "name", "email"])?;
        let draft = UserDraft { id: fields.text("id"), name: fields.text("name"), email: fields.text("email") };
        Ok(Self::checked(draft, fields.finish()))
    }

    /// Checks a draft.
    ///
    /// # Errors
    /// [`Invalid`] with all invalid fields.
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

/// A page of users by id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserQuery {
    /// Users per page, 1 to 100.
    pub limit: u64,
    /// Only users whose id is greater than this one.
    pub after: Option<UserId>,
}
