//! Users, created on their own or with their first product.

use crate::{
    catalog::{Catalog, Done, Error, Once},
    db::{self, accounts::users},
    domain::{NewUser, Page, User, UserId, UserQuery},
};

impl Catalog {
    /// Creates a user, with a generated id if it has none. With `once`, at most once.
    ///
    /// # Errors
    /// [`Error::Conflict`] if the id exists, [`Error::KeyReused`] if another request used this key.
    pub async fn create_user(&self, new: NewUser, once: Option<Once>) -> Result<Done<User>, Error> {
        let catalog = self.clone();
        self.to_the_end(async move {
            let write = catalog.database().begin().await?;
            let now = write.now().await?;
            if let Some(id) = catalog.made_before::<String>(&write, once.as_ref(), now).await? {
                let user = users::find(&*write, &UserId::stored(id)).await?;
                return user.map(Done::before).ok_or_else(|| Error::gone("the user that this request created"));
            }
            let id = new.id.unwrap_or_else(|| UserId::stored(uuid::Uuid::new_v4().to_string()));
            let user = User { id, name: new.name, email: new.email, created_at: now };
            match users::insert(&*write, &user).await {
                Err(db::Error::Duplicate(_)) => {
                    return Err(Error::Conflict(format!("user {} already exists", user.id)));
                }
                outcome => outcome?,
            }
            catalog.keep_made(&write, once.as_ref(), &user.id).await?;
            write.commit().await?;
            Ok(Done::now(user))
        })
        .await
    }

    /// Returns the user with this id.
    ///
    /// # Errors
    /// [`Error::NotFound`] if it does not exist.
    pub async fn user(&self, id: &UserId) -> Result<User, Error> {
        users::find(&self.database().read(), id).await?.ok_or_else(|| Error::not_found(format_args!("user {id}")))
    }

    /// Returns a page of users by id.
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
