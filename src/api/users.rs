//! JSON of users.
//! A type whose name ends in `Shape` only describes a request body in the OpenAPI document. The domain parses and
//! validates requests.

use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    clock::Timestamp,
    domain::{User, UserId},
};

/// A user to create.
#[derive(ToSchema)]
#[allow(dead_code, reason = "only described; the domain reads requests field by field")]
#[schema(as = NewUser)]
#[serde(deny_unknown_fields)]
pub struct NewUserShape {
    /// Id of the user; generated if absent.
    #[schema(
        min_length = 1,
        max_length = 64,
        pattern = r"^[^\u0000-\u001f\u007f-\u009f]*[^\s.\u0000-\u001f\u007f-\u009f][^\u0000-\u001f\u007f-\u009f]*$",
        example = "1234-5678-9012"
    )]
    id: Option<String>,
    /// Display name: 1 to 200 characters after trimming.
    #[schema(pattern = r"^\s*[^\s\u0000](?:[^\u0000]{0,198}[^\s\u0000])?\s*$")]
    name: Option<String>,
    /// Email address: 3 to 254 characters after trimming.
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
    /// Id of the user, chosen by the client or generated.
    id: &'a UserId,
    /// Display name.
    #[schema(required)]
    name: Option<&'a str>,
    /// Email address.
    #[schema(required)]
    email: Option<&'a str>,
    /// When the user was created.
    created_at: Timestamp,
}

impl<'a> UserBody<'a> {
    /// Creates the body of `user`.
    pub fn new(user: &'a User) -> Self {
        Self { id: &user.id, name: user.name.as_deref(), email: user.email.as_deref(), created_at: user.created_at }
    }
}
