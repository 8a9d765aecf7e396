//! Users: how they are made, and how they are answered.
//!
//! A type that ends in `Shape` describes what a request may hold. What is really read, and what is said about a mistake, is
//! decided by the domain alone.

use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    clock::Timestamp,
    domain::{User, UserId},
};

/// A user to be made.
#[derive(ToSchema)]
#[allow(dead_code, reason = "only described; the domain reads requests field by field")]
#[schema(as = NewUser)]
#[serde(deny_unknown_fields)]
pub struct NewUserShape {
    /// The id; one is made if it is left out.
    #[schema(
        min_length = 1,
        max_length = 64,
        pattern = r"^[^\u0000-\u001f\u007f-\u009f]*[^\s.\u0000-\u001f\u007f-\u009f][^\u0000-\u001f\u007f-\u009f]*$",
        example = "1234-5678-9012"
    )]
    id: Option<String>,
    /// What people call them: 1 to 200 characters once outer spaces are cut off.
    #[schema(pattern = r"^\s*[^\s\u0000](?:[^\u0000]{0,198}[^\s\u0000])?\s*$")]
    name: Option<String>,
    /// Where to write to: 3 to 254 characters once outer spaces are cut off.
    #[schema(
        format = "email",
        pattern = r"^\s*[^\s@\u0000]{1,252}@[^\s@\u0000]{1,252}\s*$",
        example = "ada@example.com"
    )]
    email: Option<String>,
}

/// A user.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = User)]
pub struct UserBody<'a> {
    /// Chosen by whoever made the user, or made.
    id: &'a UserId,
    /// What people call them.
    #[schema(required)]
    name: Option<&'a str>,
    /// Where to write to.
    #[schema(required)]
    email: Option<&'a str>,
    /// When the user was made.
    created_at: Timestamp,
}

impl<'a> UserBody<'a> {
    /// The form of `user`.
    pub fn new(user: &'a User) -> Self {
        Self { id: &user.id, name: user.name.as_deref(), email: user.email.as_deref(), created_at: user.created_at }
    }
}
