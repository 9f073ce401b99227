//! The client of sqlx on the page, below this line as it is printed there.

use std::{error::Error, fs, path::Path};

use sqlx::{Connection, PgConnection};

pub async fn emails(secret: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    let uri = fs::read_to_string(secret.join("uri-mounted"))?;
    let mut connection = PgConnection::connect(&uri).await?;
    Ok(sqlx::query_scalar("SELECT email FROM users").fetch_all(&mut connection).await?)
}
