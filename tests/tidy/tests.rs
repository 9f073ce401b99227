//! Code is whole, and its tests can fail: nothing is left to do, left out, or waited out.

use crate::{
    code,
    tree::{self, File, Finding},
};

#[test]
fn nothing_is_left_to_do() {
    tree::demand(tree::rust(), unfinished);
}

#[test]
fn tests_wait_on_conditions() {
    // The tests of dev/env watch processes die, of which nobody is told: they look again, with a deadline.
    tree::demand(tree::rust().filter(|file| !file.path.starts_with("dev/env/tests/")), sleeps);
}

#[test]
fn no_test_is_ignored() {
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

fn ignored(file: &File) -> Vec<Finding> {
    let attributes = code::read(file).attributes.into_iter().filter(|attribute| {
        let text = &attribute.text;
        let ignores = text == "ignore" || text.starts_with("ignore=") || text.contains(",ignore");
        // The tests of dev/env start themselves again, as a process to be killed: that part is no test.
        ignores && !(file.path.starts_with("dev/env/tests/") && text.starts_with("ignore="))
    });
    attributes.map(|found| Finding::new(found.line, "no test is ignored: mend it or remove it")).collect()
}

#[test]
fn each_is_seen() {
    let text = "fn f() {\n todo!() }\n#[ignore]\nfn g() {\n unimplemented!() }\n#[cfg(test)]\nmod tests { fn h() {\n\
                tokio::time::sleep(x); } }\n";
    let lines = |found: Vec<Finding>| found.into_iter().map(|finding| finding.line).collect::<Vec<_>>();
    let file = File::sample("src/x.rs", text);
    assert_eq!(lines(unfinished(&file)), [2, 5]);
    assert_eq!(lines(ignored(&file)), [3]);
    assert_eq!(lines(sleeps(&file)), [8]);
    assert_eq!(lines(sleeps(&File::sample("src/x.rs", "fn f() { sleep(1) }"))), [0; 0]);
    assert_eq!(lines(sleeps(&File::sample("tests/x.rs", "fn f() { sleep(1) }"))), [1]);
    assert_eq!(lines(ignored(&File::sample("tests/x.rs", "#[cfg_attr(x, ignore)] fn f() {}"))), [1]);
}
