//! `durward auth migrate`: brings the auth service's database up to date.

use durward_auth::Migration;
use serde_json::json;

use super::print;
use crate::cli::ConfigFile;
use crate::configuration;
use crate::exit::Failure;

/// Migrates, or only says what that would do.
pub async fn run(file: ConfigFile, check: bool, as_json: bool) -> Result<(), Failure> {
    let configuration::LoadedAuth { auth, .. } = configuration::load_auth(&file.config)?;
    let database = auth.database.to_string();
    let migrations = if check {
        durward_auth::pending_migrations(&auth).await
    } else {
        durward_auth::migrate(&auth).await
    };
    let migrations = migrations.map_err(Failure::failed)?;
    let key = if check { "pending" } else { "applied" };
    let listed: Vec<_> = migrations
        .iter()
        .map(|migration| json!({ "version": migration.version, "description": migration.description }))
        .collect();
    print(as_json, &json!({ "database": database, key: listed }), |_| {
        lines(&database, key, &migrations)
    });
    if check && !migrations.is_empty() {
        return Err(Failure::No(format!("{database} is not up to date")));
    }
    Ok(())
}

fn lines(database: &str, key: &str, migrations: &[Migration]) -> String {
    if migrations.is_empty() {
        return format!("{database} is up to date");
    }
    let lines: Vec<String> = migrations
        .iter()
        .map(|migration| format!("{key}: {migration}"))
        .collect();
    lines.join("\n")
}
