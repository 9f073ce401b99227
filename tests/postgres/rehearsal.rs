//! A module is rehearsed in a scratch database before any tenant has it.

use sqlx::PgConnection;
use tenantry::{
    domain::rehearsal::{FindingClass, Rehearsal},
    modules::{Migration, Module, ModuleSet},
};

use crate::servers::{SERVERS, ready};

/// A module of these files.
pub fn module(name: &'static str, files: &[&str]) -> Module {
    let file = |(index, sql): (usize, &&str)| {
        let version = i32::try_from(index).unwrap() + 1;
        Migration { version, file: format!("{version:04}_{name}.sql").into(), sql: (*sql).to_owned().into() }
    };
    Module::new(name, files.iter().enumerate().map(file).collect::<Vec<_>>())
}

async fn scratch_databases(admin: &mut PgConnection) -> i64 {
    let count = "SELECT count(*) FROM pg_database WHERE starts_with(datname, 'tenantry_scratch_')";
    sqlx::query_scalar(count).fetch_one(admin).await.unwrap()
}

#[tokio::test]
async fn failing_file_is_reported_with_its_position_and_nothing_is_left() {
    for postgres in &*SERVERS {
        let server = ready(postgres).await;
        let mut admin = postgres.connect("postgres").await.unwrap();
        let good = "CREATE TABLE pages (id int);\nCREATE INDEX pages_by_id ON pages (id);";
        let bad = "CREATE TABLE notes (id int);\nCREATE TABLE more (a no_such_type);";
        let wiki = module("wiki", &[good, bad, "SELECT 1"]);
        let report = server.rehearse(&ModuleSet::built_in(), &wiki, 0, false).await.unwrap();
        let statements: Vec<u32> = report.files.iter().map(|file| file.statements).collect();
        assert_eq!(statements, [2, 0]);
        let [finding] = &report.findings[..] else { panic!("{report:?}") };
        assert_eq!(finding.class, FindingClass::SqlFailed);
        assert_eq!((&*finding.file, finding.line), ("0002_wiki.sql", Some(2)));
        assert!(!report.is_accepted());
        assert_eq!(scratch_databases(&mut admin).await, 0);
        // Files that were rehearsed before are applied, and not reported again.
        let wiki = module("wiki", &[good, "ALTER TABLE pages ADD title text"]);
        let report = server.rehearse(&ModuleSet::built_in(), &wiki, 1, false).await.unwrap();
        assert_eq!(report.files.iter().map(|file| file.version).collect::<Vec<_>>(), [2]);
        assert_eq!(report.findings, Rehearsal::default().findings);
    }
}
