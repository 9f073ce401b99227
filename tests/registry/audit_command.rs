//! `tenantry audit`, as an administrator runs it.

use std::{fs, path::PathBuf, process::Output};

use serde_json::Value;
use sqlx::{AssertSqlSafe, Executor};
use tokio::process::Command;

use crate::{
    activity_chain::{note, without_triggers},
    system::{System, created, tenant},
};

async fn audit(url: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tenantry"));
    command.arg("audit").args(arguments).env_clear().env("TENANTRY_SYSTEM_DATABASE_URL", url);
    command.output().await.unwrap()
}

/// The exit code and the lines of the output. Errors go to the other stream.
fn lines(output: &Output) -> (i32, Vec<String>) {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    (output.status.code().unwrap(), text.lines().map(str::to_owned).collect())
}

fn error(output: &Output) -> (i32, String) {
    assert!(output.stdout.is_empty(), "{output:?}");
    (output.status.code().unwrap(), String::from_utf8(output.stderr.clone()).unwrap())
}

fn file(system: &System<'_>, text: &[u8]) -> PathBuf {
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!(
        "{}-{}.jsonl",
        system.database,
        system.server.port()
    ));
    fs::write(&file, text).unwrap();
    file
}

#[tokio::test]
async fn log_is_verified_and_compared_with_heads_that_were_stored() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let id = created(&registry, &tenant("acme")).await.id;
        note(&registry, Some(id), 1200).await;
        note(&registry, None, 3).await;
        let url = system.url();
        let heads = audit(&url, &["heads"]).await;
        let (code, printed) = lines(&heads);
        assert_eq!((code, printed.len()), (0, 2));
        assert!(printed[1].contains("\"slug\":\"acme\",\"position\":1202"), "{printed:?}");
        let stored = file(&system, &heads.stdout);
        let stored = stored.to_str().unwrap();

        let verified = lines(&audit(&url, &["verify", "--heads", stored]).await);
        let expected = "1205 rows in 2 chains, 2 stored heads compared: no difference";
        assert_eq!(verified, (0, vec![expected.to_owned()]));

        let mut session = without_triggers(&system).await;
        let tampering = format!(
            "UPDATE activity SET actor = 'bob' WHERE tenant_id = '{id}' AND position = 700;
             DELETE FROM activity WHERE tenant_id = '{id}' AND position BETWEEN 900 AND 1000"
        );
        sqlx::raw_sql(AssertSqlSafe(tampering)).execute(&mut session).await.unwrap();
        let (code, found) = lines(&audit(&url, &["verify"]).await);
        assert_eq!(code, 3);
        let tenant = format!("tenant acme ({id}): ");
        assert!(
            found[0].starts_with(&tenant) && found[0].contains("(position 700) was changed"),
            "{found:?}"
        );
        let removed = format!("{tenant}the rows at positions 900 to 1000 are missing: removed");
        assert_eq!(found[1..], [removed, "1104 rows in 2 chains: 2 differences".to_owned()]);
    }
}

#[tokio::test]
async fn log_is_exported_as_json_lines_and_as_cloud_events() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let acme = created(&registry, &tenant("acme")).await.id;
        created(&registry, &tenant("other")).await;
        note(&registry, Some(acme), 1100).await;
        note(&registry, None, 1).await;
        let mut session = system.session().await;
        session
            .execute(
                "INSERT INTO activity (at, action, actor) VALUES ('2020-01-01 12:00:00.5+00', 'Old', 'x')",
            )
            .await
            .unwrap();
        let url = system.url();
        let read = async |arguments: &[&str]| -> Vec<Value> {
            let (code, lines) = lines(&audit(&url, &[&["export"], arguments].concat()).await);
            assert_eq!(code, 0);
            lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
        };
        let all = read(&[]).await;
        assert_eq!(all.len(), 1106);
        let ids: Vec<_> = all.iter().map(|row| row["id"].as_i64().unwrap()).collect();
        assert!(ids.is_sorted_by(|a, b| a < b), "each row once, in order");
        assert_eq!(all[1105]["at"], "2020-01-01T12:00:00.500000Z");
        let of_acme = read(&["--tenant", "acme"]).await;
        assert_eq!(of_acme.len(), 1102);
        assert!(of_acme.iter().all(|row| row["tenant"] == acme.to_string()));
        assert_eq!(of_acme[2]["details"]["nested"]["ü"][1], Value::Null);
        assert_eq!(read(&["--since", "2021-01-01"]).await.len(), 1105);
        assert_eq!(read(&["--since", "2999-01-01T00:00:00+01:00"]).await.len(), 0);

        let installation = registry.installation().await.unwrap().id;
        let events = read(&["--format", "cloudevents", "--tenant", "acme"]).await;
        assert_eq!(events.len(), 1102);
        for (event, row) in events.iter().zip(&of_acme) {
            assert_eq!(event["specversion"], "1.0");
            assert_eq!(event["source"], format!("urn:uuid:{installation}"));
            assert_eq!((&event["data"], &event["subject"]), (row, &row["tenant"]));
        }
        assert_eq!(events[1]["type"], "dev.tenantry.activity.Registered");
        assert_eq!(events[1]["correlationid"], of_acme[1]["correlation"]);
    }
}

#[tokio::test]
async fn what_cannot_be_checked_fails_with_what_to_do() {
    let system = &System::both().await[0];
    let url = system.url();
    let failed = async |arguments: &[&str]| error(&audit(&url, arguments).await);
    let (code, message) = failed(&["export", "--tenant", "unknown"]).await;
    assert!(code == 1 && message.contains("no tenant has or had the slug \"unknown\""), "{message}");
    let (code, message) = failed(&["verify", "--heads", "/nowhere.jsonl"]).await;
    assert!(code == 1 && message.contains("cannot read /nowhere.jsonl"), "{message}");
    let other = file(system, b"{}\n");
    let (code, message) = failed(&["verify", "--heads", other.to_str().unwrap()]).await;
    assert!(code == 1 && message.contains("line 1 is not a line of `tenantry audit heads`"), "{message}");
    let (code, message) = failed(&["export", "--since", "yesterday"]).await;
    assert!(code == 2 && message.contains("a date such as 2026-11-30"), "{message}");
    let empty = System::empty_on(system.server).await;
    let (code, message) = error(&audit(&empty.url(), &["verify"]).await);
    assert!(code == 1 && message.contains("the registry has no chains yet"), "{message}");
}
