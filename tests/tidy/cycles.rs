//! The files of a top-level module of `src` import each other in one direction: no file imports itself by way of others.
//!
//! The files of a folder may use what its `mod.rs` defines, although that calls or re-exports them: together they are one
//! module. What a `mod.rs` re-exports counts as an import of the file that defines it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::{
    code::{self, module_of},
    tree::{self, File},
};

/// Which files each file imports.
type Imports = BTreeMap<String, BTreeSet<String>>;

/// The file of each module.
type Modules<'f> = BTreeMap<Vec<String>, &'f str>;

#[test]
fn files_of_a_module_import_in_one_direction() {
    let files: Vec<&File> = tree::rust().filter(|file| file.path.starts_with("src/")).collect();
    let found = cycles(&imports(&files));
    assert!(found.is_empty(), "these files import each other:\n{}\n", found.join("\n"));
}

/// What each file imports of its own top-level module, outside of tests.
fn imports(files: &[&File]) -> Imports {
    let modules: Modules = files.iter().map(|file| (module_of(&file.path), file.path.as_str())).collect();
    let paths: BTreeMap<&str, Vec<Vec<String>>> =
        files.iter().map(|file| (file.path.as_str(), paths(file, &modules))).collect();
    let mut imports = Imports::new();
    for (file, used) in &paths {
        let of_file = imports.entry((*file).to_owned()).or_default();
        for path in used {
            let Some(target) = target(path, &modules) else { continue };
            // What a mod.rs re-exports is defined elsewhere in its folder.
            let exported = paths[target].iter().filter(|export| export.last() == path.last());
            let defined: Vec<&str> = exported
                .filter_map(|export| self::target(export, &modules))
                .filter(|defined| is_own_folder(target, defined) && *defined != target)
                .collect();
            if defined.is_empty() && !is_own_folder(target, file) {
                of_file.insert(target.to_owned());
            }
            of_file.extend(defined.into_iter().map(str::to_owned));
        }
        of_file.remove(*file);
    }
    imports
}

/// The paths of a file that lead to its own top-level module, outside of tests.
fn paths(file: &File, modules: &Modules) -> Vec<Vec<String>> {
    let own = module_of(&file.path);
    let paths = code::read(file).paths.into_iter().filter(|path| !path.in_test);
    let from_root = paths.filter_map(|path| match path.segments.split_first() {
        Some((first, rest)) if first == "crate" => Some(rest.to_vec()),
        // A module of the file's own, named without `self`.
        Some((first, _)) => {
            let child: Vec<String> = own.iter().chain([first]).cloned().collect();
            modules.contains_key(&child).then(|| own.iter().chain(&path.segments).cloned().collect())
        }
        None => None,
    });
    from_root.filter(|path| !path.is_empty() && path.first() == own.first()).collect()
}

/// The file that the longest part of a path is.
fn target<'m>(path: &[String], modules: &Modules<'m>) -> Option<&'m str> {
    (1..=path.len()).rev().find_map(|length| modules.get(&path[..length])).copied()
}

/// Whether the first is the `mod.rs` of the folder of the second.
fn is_own_folder(file: &str, other: &str) -> bool {
    file.strip_suffix("mod.rs").is_some_and(|folder| other.starts_with(folder))
}

/// The shortest cycle through each file that has one, each cycle once.
fn cycles(imports: &Imports) -> Vec<String> {
    let mut known: BTreeSet<BTreeSet<&str>> = BTreeSet::new();
    let mut found = Vec::new();
    for start in imports.keys() {
        let Some(cycle) = cycle_through(start, imports) else { continue };
        if known.insert(cycle.iter().copied().collect()) {
            found.push(format!("{} -> {start}", cycle.join(" -> ")));
        }
    }
    found
}

fn cycle_through<'i>(start: &'i str, imports: &'i Imports) -> Option<Vec<&'i str>> {
    let mut before: BTreeMap<&str, &str> = BTreeMap::new();
    let mut open = VecDeque::from([start]);
    while let Some(file) = open.pop_front() {
        for next in imports.get(file).into_iter().flatten() {
            if next == start {
                let mut cycle = vec![file];
                while let Some(previous) = before.get(cycle[cycle.len() - 1]) {
                    cycle.push(previous);
                }
                cycle.reverse();
                return Some(cycle);
            }
            if !before.contains_key(next.as_str()) {
                before.insert(next, file);
                open.push_back(next);
            }
        }
    }
    None
}

#[test]
fn each_cycle_is_found_once() {
    let sample = [
        ("src/api/mod.rs", "pub mod a; pub mod b; pub mod c; pub use b::B;"),
        ("src/api/a.rs", "use super::B; use crate::domain::x;"),
        ("src/api/b.rs", "fn f() { crate::api::c::g(); }"),
        ("src/api/c.rs", "use crate::api::{a::A, c};"),
        ("src/domain/x.rs", "use crate::domain::y::Y;\n#[cfg(test)] mod tests { use crate::domain::z::Z; }"),
        ("src/domain/y.rs", "use super::z;"),
        ("src/domain/z.rs", "// use super::x;\nfn f() { \"crate::domain::x\"; }"),
        ("src/web/mod.rs", "mod page; use page::Page;"),
        ("src/web/page.rs", "use super::Site;"),
        ("src/modules/set.rs", "use super::sources;"),
        ("src/modules/sources/mod.rs", "mod files; fn f() { files::read(); }"),
        ("src/modules/sources/files.rs", "use crate::modules::set;"),
        ("src/modules/mod.rs", "mod set;"),
    ]
    .map(|(path, text)| File::sample(path, text));
    let files: Vec<&File> = sample.iter().collect();
    assert_eq!(
        cycles(&imports(&files)),
        [
            "src/api/a.rs -> src/api/b.rs -> src/api/c.rs -> src/api/a.rs",
            "src/modules/set.rs -> src/modules/sources/mod.rs -> src/modules/sources/files.rs -> \
             src/modules/set.rs",
        ]
    );
}
