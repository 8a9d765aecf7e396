//! `pm user`: add, list, get.

use serde::Serialize;

use super::{
    args::{self, Paging},
    failure::{Exit, Failure},
    output::{Console, Row, seconds},
};
use crate::{
    api::UserBody,
    catalog::{Catalog, Error},
    domain::{NewUser, User, UserDraft, UserId, UserQuery},
};

/// Runs the command.
pub(super) async fn run(command: args::User, catalog: &Catalog, console: &mut Console) -> Result<Exit, Failure> {
    match command {
        args::User::Add { id, name, email } => add(UserDraft { id, name, email }, catalog, console).await?,
        args::User::List(paging) => list(&paging, catalog, console).await?,
        args::User::Get { id } => {
            let id = UserId::parse(&id).map_err(|reason| Failure::new(Exit::Usage, format!("the user id {reason}")))?;
            console.single(&UserRow::new(&catalog.user(&id).await?))?;
        }
    }
    Ok(Exit::Done)
}

async fn add(draft: UserDraft, catalog: &Catalog, console: &mut Console) -> Result<(), Failure> {
    let new = NewUser::parse(draft).map_err(|invalid| Failure::invalid(&invalid, flag))?;
    let user = catalog.create_user(new, None).await.map_err(|error| match error {
        Error::Conflict(_) => Failure::from(error).hint("`pm user get ID` shows the existing user"),
        _ => error.into(),
    })?;
    Ok(console.single(&UserRow::new(&user.value))?)
}

async fn list(paging: &Paging, catalog: &Catalog, console: &mut Console) -> Result<(), Failure> {
    let mut cursor = paging.cursor.clone();
    let mut list = console.list();
    loop {
        let pairs = [("limit", paging.page_size()), ("cursor", cursor.as_deref())];
        let given = pairs.into_iter().filter_map(|(name, value)| value.map(|value| (name, value)));
        let query = UserQuery::parse(given).map_err(|invalid| Failure::invalid(&invalid, flag))?;
        let page = catalog.users(&query).await?;
        let rows: Vec<_> = page.items.iter().map(UserRow::new).collect();
        list.page(&rows)?;
        cursor = page.next_cursor;
        if cursor.is_none() || !paging.all {
            return Ok(list.finish(cursor.as_deref())?);
        }
    }
}

/// Maps a field to its flag: `email` to `--email`.
pub(super) fn flag(field: &str) -> String {
    format!("--{}", field.replace('_', "-"))
}

#[derive(Serialize)]
struct UserRow<'a> {
    #[serde(flatten)]
    body: UserBody<'a>,
    #[serde(skip)]
    user: &'a User,
}

impl<'a> UserRow<'a> {
    fn new(user: &'a User) -> Self {
        Self { body: UserBody::new(user), user }
    }
}

impl Row for UserRow<'_> {
    const COLUMNS: &'static [&'static str] = &["id", "name", "email", "created"];
    const FIELDS: &'static [&'static str] = &["id", "name", "email", "created_at"];

    fn id(&self) -> String {
        self.user.id.to_string()
    }

    fn cells(&self) -> Vec<String> {
        let mut cells = self.fields();
        cells[3] = seconds(self.user.created_at);
        cells
    }

    fn fields(&self) -> Vec<String> {
        let User { id, name, email, created_at } = self.user;
        let or_empty = |text: &Option<String>| text.clone().unwrap_or_default();
        vec![id.to_string(), or_empty(name), or_empty(email), created_at.to_string()]
    }
}
