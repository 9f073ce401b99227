//! Every flag of `tenantry run` has a value of the chart.

use std::{collections::BTreeSet, process::Command};

use tenantry_dev::helm::Helm;

use crate::{file, of_kind, render};

/// What a container has by its environment, and never as an argument.
const BY_ENVIRONMENT: [(&str, &str); 2] =
    [("--system-database-url", "TENANTRY_SYSTEM_DATABASE_URL"), ("--pod-uid", "TENANTRY_POD_UID")];

/// The flags that `--help` shows.
fn flags() -> BTreeSet<String> {
    let help = Command::new(env!("CARGO_BIN_EXE_tenantry")).args(["run", "--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let lines = help.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
    let flags = lines.filter_map(|line| line.split([' ', ',', '=']).find(|word| word.starts_with("--")));
    flags.filter(|flag| *flag != "--help").map(str::to_owned).collect()
}

#[tokio::test]
async fn every_flag_has_a_value() {
    let helm = Helm::new(None).await.unwrap();
    let values = file("values/everything.yaml").display().to_string();
    let rendered = render(&helm, &["--values", &values, "--set", "crds.install=false"]).await;
    let container = &of_kind(&rendered, "Deployment")[0]["spec"]["template"]["spec"]["containers"][0];
    let arguments = container["args"].as_array().unwrap().iter().map(|argument| argument.as_str().unwrap());
    let arguments = arguments.filter(|argument| argument.starts_with("--"));
    let mut given: BTreeSet<String> =
        arguments.map(|argument| argument.split('=').next().unwrap().to_owned()).collect();
    for (flag, variable) in BY_ENVIRONMENT {
        let has = container["env"].as_array().unwrap().iter().any(|found| found["name"] == variable);
        assert!(has, "{variable}");
        given.insert(flag.to_owned());
    }
    let flags = flags();
    assert!(flags.len() > 20, "{flags:?}");
    assert_eq!(given, flags, "left: of the chart, right: of `tenantry run`");
}
