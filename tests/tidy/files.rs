//! The files of this repository.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A text file.
pub struct File {
    /// Relative to the repository, with `/`.
    pub path: String,
    pub text: String,
}

const FOLDERS: [&str; 10] =
    [".ci", "crds", "charts", "dev", "docs", "examples", "migrations", "src", "tests", ".github"];
const TEXTS: [&str; 10] = ["rs", "go", "toml", "md", "yaml", "yml", "sql", "mod", "sh", ""];

/// All text files that are ours, with the ones at the top.
pub fn all() -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths: Vec<PathBuf> = fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file() && !path.ends_with(".git"))
        .collect();
    for folder in FOLDERS {
        walk(&root.join(folder), &mut paths);
    }
    paths.sort();
    let files = paths.into_iter().filter(|path| {
        let extension = path.extension().map(|e| e.to_string_lossy().into_owned()).unwrap_or_default();
        TEXTS.contains(&extension.as_str())
    });
    files
        .filter_map(|path| {
            let text = fs::read_to_string(&path).ok()?;
            let path = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
            Some(File { path, text })
        })
        .collect()
}

/// Rust files under one of the given folders.
pub fn rust(folders: &[&str]) -> Vec<File> {
    let wanted = |file: &File| file.path.ends_with(".rs") && folders.iter().any(|f| file.path.starts_with(f));
    all().into_iter().filter(wanted).collect()
}

fn walk(folder: &Path, paths: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() { walk(&path, paths) } else { paths.push(path) }
    }
}

impl File {
    /// Lines of code with their numbers, comments left out.
    pub fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate().map(|(at, line)| (at + 1, line));
        lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    /// The code before the file's own tests.
    pub fn production(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code().take_while(|(_, line)| !line.starts_with("#[cfg(test)]"))
    }
}
