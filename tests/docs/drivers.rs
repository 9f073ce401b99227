//! The snippets of `docs/drivers.md`, as they are printed, with the real drivers: each connects with a mounted Secret, and refuses
//! another certificate authority and another host name.

mod mounted;
mod sqlx_client;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use self::mounted::{CASES, Case, Database, EMAIL, Mounted};
use crate::shell::page;

/// A driver, and how its snippet is run.
struct Driver {
    /// The section of the page.
    section: &'static str,
    /// The file in which the snippet is expected.
    file: &'static str,
    /// Builds it, if it is built.
    build: &'static [&'static str],
    /// Runs it, in the directory of the installation.
    run: &'static [&'static str],
    /// What it says of another certificate authority, and of another host name.
    refusals: [&'static str; 2],
}

/// A package registry, from which drivers are installed once per machine.
struct PackageRegistry {
    /// A change of what is installed needs another name.
    name: &'static str,
    fixtures: &'static [&'static str],
    install: &'static [&'static [&'static str]],
}

const PYTHON: PackageRegistry = PackageRegistry {
    name: "drivers-python-1",
    fixtures: &["requirements.txt", "django_users.py"],
    install: &[
        &["python3", "-m", "venv", "python"],
        &["python/bin/pip", "install", "--quiet", "--requirement", "requirements.txt"],
    ],
};

const NODE: PackageRegistry = PackageRegistry {
    name: "drivers-node-1",
    fixtures: &["package.json", "schema.prisma"],
    install: &[
        &["npm", "install", "--no-audit", "--no-fund", "--no-package-lock"],
        // A client with an adapter needs no engine, which would be downloaded.
        &[
            "env",
            "PRISMA_SCHEMA_ENGINE_BINARY=/bin/true",
            "npx",
            "prisma",
            "generate",
            "--schema",
            "schema.prisma",
        ],
    ],
};

const MAVEN: PackageRegistry = PackageRegistry {
    name: "drivers-maven-1",
    fixtures: &["pom.xml", "spring/example/Application.java"],
    install: &[
        &["mvn", "--batch-mode", "--quiet", "dependency:copy-dependencies", "-DoutputDirectory=lib"],
        &["javac", "-d", "classes", "-cp", "lib/*", "spring/example/Application.java"],
    ],
};

const GO: PackageRegistry =
    PackageRegistry { name: "drivers-go-1", fixtures: &["go.mod", "go.sum"], install: &[] };

fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

fn text(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).join("\n")
}

fn succeed(command: &mut Command) {
    let output = run(command);
    assert!(output.status.success(), "{command:?}: {}\n{}", output.status, text(&output));
}

fn command(line: &[&str], directory: &Path) -> Command {
    let mut command = Command::new(line[0]);
    command.args(&line[1..]).current_dir(directory);
    command
}

impl PackageRegistry {
    /// The directory in which its drivers are installed.
    fn installed(&self) -> PathBuf {
        let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let cache = cache.unwrap_or_else(|| env::home_dir().unwrap().join(".cache"));
        let directory = cache.join("tenantry/tools").join(self.name);
        let complete = directory.join("complete");
        if !complete.exists() {
            let _ = fs::remove_dir_all(&directory);
            for file in self.fixtures {
                let copy = directory.join(file);
                fs::create_dir_all(copy.parent().unwrap()).unwrap();
                fs::copy(fixtures().join(file), copy).unwrap();
            }
            self.install.iter().for_each(|line| succeed(&mut command(line, &directory)));
            fs::write(complete, "").unwrap();
        }
        directory
    }
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/docs/drivers")
}

/// The only block of a section.
fn snippet<'p>(page: &'p str, section: &str) -> &'p str {
    let section = page.split("\n## ").find(|found| found.lines().next() == Some(section)).unwrap();
    let blocks: Vec<&str> = section.split("\n```").collect();
    let [_, block, _] = blocks[..] else { panic!("one block is expected in {section}") };
    block.split_once('\n').unwrap().1
}

/// A client's outcome where a Secret is right, and where it is wrong.
fn demand_outcome(section: &str, case: Case, output: &Output, refusals: [&str; 2]) {
    let printed = text(output);
    let expected = match case {
        Case::Right => EMAIL,
        Case::OtherAuthority => refusals[0],
        Case::OtherHost => refusals[1],
    };
    assert_eq!(output.status.success(), case == Case::Right, "{section}, {case:?}:\n{printed}");
    assert!(printed.contains(expected), "{section}, {case:?}: no {expected:?} in\n{printed}");
}

/// Nothing of this process's environment that names a database reaches a client.
fn clean(command: &mut Command) -> &mut Command {
    let kept = ["PATH", "HOME"].map(|name| (name, env::var(name).unwrap()));
    command.env_clear().envs(kept)
}

async fn connects(registry: PackageRegistry, drivers: &[Driver]) {
    let directory = registry.installed();
    let database = Database::start().await;
    let page = page("drivers.md");
    for driver in drivers {
        fs::write(directory.join(driver.file), snippet(&page, driver.section)).unwrap();
        if !driver.build.is_empty() {
            succeed(&mut command(driver.build, &directory));
        }
        for case in CASES {
            let secret = database.secret(case, ["db.example", "other.example"]);
            let mut client = secret.container();
            clean(client.args(driver.run).current_dir(&directory));
            demand_outcome(driver.section, case, &run(&mut client), driver.refusals);
        }
    }
}

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn drivers_of_python_connect_as_printed() {
    const REFUSALS: [&str; 2] = ["certificate verify failed", "does not match host name \"other.example\""];
    let python = |section, file, run| Driver { section, file, build: &[], run, refusals: REFUSALS };
    let drivers = [
        python("psycopg", "a_psycopg.py", &["python/bin/python", "a_psycopg.py"]),
        python("SQLAlchemy", "a_sqlalchemy.py", &["python/bin/python", "a_sqlalchemy.py"]),
        python(
            "Django",
            "settings.py",
            &["env", "DJANGO_SETTINGS_MODULE=settings", "python/bin/python", "django_users.py"],
        ),
    ];
    connects(PYTHON, &drivers).await;
}

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn drivers_of_node_connect_as_printed() {
    const REFUSALS: [&str; 2] =
        ["unable to verify the first certificate", "other.example. is not in the cert's altnames"];
    let node = |section, file, run| Driver { section, file, build: &[], run, refusals: REFUSALS };
    let drivers = [
        node("node-postgres", "pg.mjs", &["node", "pg.mjs"]),
        node("Prisma", "prisma.mjs", &["node", "prisma.mjs"]),
    ];
    connects(NODE, &drivers).await;
}

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn drivers_of_java_connect_as_printed() {
    const REFUSALS: [&str; 2] =
        ["unable to find valid certification path", "hostname other.example could not be verified"];
    let java = |section, file, run| Driver { section, file, build: &[], run, refusals: REFUSALS };
    let drivers = [
        java("pgJDBC", "Jdbc.java", &["java", "-cp", "lib/*", "Jdbc.java"]),
        java(
            "Spring Boot",
            "spring/application.properties",
            &["java", "-cp", "classes:spring:lib/*", "example.Application"],
        ),
    ];
    connects(MAVEN, &drivers).await;
}

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn pgx_connects_as_printed() {
    let pgx = Driver {
        section: "pgx",
        file: "main.go",
        build: &["go", "build", "-mod=mod", "-o", "application", "."],
        run: &["./application"],
        refusals: ["certificate signed by unknown authority", "not other.example"],
    };
    connects(GO, &[pgx]).await;
}

/// Set in the process whose Secret is mounted.
const MOUNTED: &str = "TENANTRY_TEST_MOUNTED";

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn sqlx_connects_where_the_secret_is_mounted() {
    if env::var_os(MOUNTED).is_some() {
        println!("{:?}", sqlx_client::emails(Path::new("/bindings/acme-db")).await.unwrap());
        return;
    }
    let database = Database::start().await;
    for case in CASES {
        let secret = database.secret(case, ["db.example", "other.example"]);
        let mut client = secret.container();
        client.arg(env::current_exe().unwrap());
        client.args([
            "--exact",
            "drivers::sqlx_connects_where_the_secret_is_mounted",
            "--ignored",
            "--nocapture",
        ]);
        clean(&mut client).env(MOUNTED, "1");
        demand_outcome("sqlx", case, &run(&mut client), ["UnknownIssuer", "NotValidForNameContext"]);
    }
}

#[tokio::test]
async fn sqlx_connects_and_refuses_as_printed() {
    let client = fs::read_to_string(fixtures().join("sqlx_client.rs")).unwrap();
    let (_, client) = client.split_once("\n\n").unwrap();
    assert_eq!(snippet(&page("drivers.md"), "sqlx"), client.trim_end());
    let database = Database::start().await;
    for case in CASES {
        let secret: Mounted = database.secret(case, ["127.0.0.1", "localhost"]);
        secret.name_files_here();
        let emails = sqlx_client::emails(&secret.files()).await.map_err(|error| error.to_string());
        match case {
            Case::Right => assert_eq!(emails.unwrap(), [EMAIL]),
            Case::OtherAuthority => assert!(emails.unwrap_err().contains("UnknownIssuer")),
            Case::OtherHost => assert!(emails.unwrap_err().contains("localhost")),
        }
    }
}

#[test]
fn page_names_the_releases_that_are_run() {
    let page = page("drivers.md");
    let table = page.split("\n| driver | run with |\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let mut pinned = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    for file in ["requirements.txt", "package.json", "pom.xml", "go.mod"] {
        pinned += &fs::read_to_string(fixtures().join(file)).unwrap();
    }
    let releases: Vec<&str> = table.lines().skip(1).filter_map(|line| line.split(" | ").nth(1)).collect();
    assert_eq!(releases.len(), 9, "{releases:?}");
    for release in releases {
        let release = release.trim_end_matches(" |");
        assert!(pinned.contains(release), "docs/drivers.md: {release} is not what the tests install");
    }
}
