//! Code is complete, and its tests can fail: nothing unfinished, no ignored test, no sleep.

use crate::{
    code,
    tree::{self, File, Finding},
};

#[test]
fn nothing_is_unfinished() {
    tree::demand(tree::rust(), unfinished);
}

#[test]
fn tests_wait_for_conditions() {
    // The tests of dev/env wait for the end of processes, which is not notified: they poll, with a deadline.
    tree::demand(tree::rust().filter(|file| !file.path.starts_with("dev/env/tests/")), sleeps);
}

#[test]
fn tests_wait_with_a_deadline() {
    tree::demand(tree::rust(), polls);
}

/// The attribute of a test that only `make test-all` runs, and the programs that it runs.
const SLOW: &str = "ignore=\"slow:maketest-all\"";
const SLOW_PROGRAMS: [&str; 7] = [
    "tests/chart/",
    "tests/cluster/",
    "tests/docs/",
    "tests/faults/",
    "tests/gitops/",
    "tests/leader/",
    "tests/postgres/",
];

#[test]
fn make_test_all_runs_slow_tests() {
    let recipe = &tree::file("Makefile").text;
    for program in SLOW_PROGRAMS {
        let name = program.trim_start_matches("tests/").trim_end_matches('/');
        assert!(recipe.contains(&format!("--test {name}")), "Makefile: test-all does not run {program}");
    }
}

#[test]
fn only_slow_tests_are_ignored() {
    tree::demand(tree::rust(), ignored);
}

fn unfinished(file: &File) -> Vec<Finding> {
    let words = code::read(file).words.into_iter();
    words
        .filter(|word| word.is_macro && ["todo", "unimplemented"].contains(&word.text.as_str()))
        .map(|word| Finding::new(word.line, format!("{}!: nothing unfinished is committed", word.text)))
        .collect()
}

fn sleeps(file: &File) -> Vec<Finding> {
    let is_test = file.path.starts_with("tests/");
    let words = code::read(file).words.into_iter();
    words
        .filter(|word| (is_test || word.in_test) && ["sleep", "sleep_until"].contains(&word.text.as_str()))
        .map(|word| Finding::new(word.line, "a test does not sleep: it waits on the condition it is about"))
        .collect()
}

/// A loop without a body that waits for a condition: where the condition never comes, the whole run hangs.
fn polls(file: &File) -> Vec<Finding> {
    let tokens = code::read(file).tokens;
    let begins = tokens.windows(2).enumerate().filter(|(_, two)| two[0].is("while") && two[1].is("!"));
    let polls = begins.filter(|(at, _)| {
        let rest = &tokens[*at..];
        let body = rest.windows(2).position(|two| two[0].is("{") && two[1].is("}"));
        let end = rest.iter().position(|token| token.is("{"));
        body == end && end.is_some_and(|end| rest[..end].iter().any(|token| token.is("await")))
    });
    polls
        .map(|(at, _)| {
            Finding::new(tokens[at].line, "a test waits with a deadline: tenantry_test_support::Wait")
        })
        .collect()
}

fn ignored(file: &File) -> Vec<Finding> {
    let attributes = code::read(file).attributes.into_iter().filter(|attribute| {
        let text = &attribute.text;
        let ignores = text == "ignore" || text.starts_with("ignore=") || text.contains(",ignore");
        let is_slow = *text == SLOW && SLOW_PROGRAMS.iter().any(|program| file.path.starts_with(program));
        // The tests of dev/env start their own program as a process to be killed: that part is no test.
        let is_process = file.path.starts_with("dev/env/tests/") && text.starts_with("ignore=");
        ignores && !(is_slow || is_process)
    });
    attributes
        .map(|found| {
            Finding::new(
                found.line,
                "no test is ignored but the slow ones of make test-all: fix it or remove it",
            )
        })
        .collect()
}

#[test]
fn unfinished_sleeping_and_ignored_tests_are_found() {
    let text = "fn f() {\n todo!() }\n#[ignore]\nfn g() {\n unimplemented!() }\n#[cfg(test)]\nmod tests { fn h() {\n\
                tokio::time::sleep(x); } }\n";
    let lines = |found: Vec<Finding>| found.into_iter().map(|finding| finding.line).collect::<Vec<_>>();
    let file = File::sample("src/x.rs", text);
    assert_eq!(lines(unfinished(&file)), [2, 5]);
    assert_eq!(lines(ignored(&file)), [3]);
    assert_eq!(lines(sleeps(&file)), [8]);
    let poll =
        "async fn f() {\n while !is_there(x).await {\n} while !queue.is_empty() {} while a().await {} }";
    assert_eq!(lines(polls(&File::sample("tests/x.rs", poll))), [2]);
    assert_eq!(lines(sleeps(&File::sample("src/x.rs", "fn f() { sleep(1) }"))), [0; 0]);
    assert_eq!(lines(sleeps(&File::sample("tests/x.rs", "fn f() { sleep(1) }"))), [1]);
    assert_eq!(lines(ignored(&File::sample("tests/x.rs", "#[cfg_attr(x, ignore)] fn f() {}"))), [1]);
    let slow = "#[ignore = \"slow: make test-all\"] fn f() {}";
    assert_eq!(lines(ignored(&File::sample("tests/faults/x.rs", slow))), [0; 0]);
    assert_eq!(lines(ignored(&File::sample("tests/registry/x.rs", slow))), [1]);
}
