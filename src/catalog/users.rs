//! Users: made on their own or along with their first product.

use crate::{
    catalog::{Catalog, Error},
    db::{self, users},
    domain::{NewUser, Page, User, UserId, UserQuery},
};

impl Catalog {
    /// Stores a user; without an id one is made.
    ///
    /// # Errors
    /// [`Error::Conflict`] if the id is taken.
    pub async fn create_user(&self, new: NewUser) -> Result<User, Error> {
        let id = new.id.unwrap_or_else(|| UserId::stored(uuid::Uuid::new_v4().to_string()));
        let write = self.database().begin().await?;
        let user = User { id, name: new.name, email: new.email, created_at: write.now().await? };
        match users::insert(&*write, &user).await {
            Err(db::Error::Duplicate(_)) => {
                return Err(Error::Conflict(format!("there is a user {} already", user.id)));
            }
            outcome => outcome?,
        }
        write.commit().await?;
        Ok(user)
    }

    /// The user with this id.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none.
    pub async fn user(&self, id: &UserId) -> Result<User, Error> {
        users::find(&self.database().read(), id).await?.ok_or_else(|| Error::not_found(format_args!("user {id}")))
    }

    /// A page of users by id.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn users(&self, query: &UserQuery) -> Result<Page<User>, Error> {
        let mut items = users::list(&self.database().read(), query).await?;
        let more = items.len() as u64 > query.limit;
        if more {
            items.pop();
        }
        let next_cursor = items.last().filter(|_| more).map(|last| UserQuery::encode_cursor(&last.id));
        Ok(Page { items, next_cursor })
    }
}
