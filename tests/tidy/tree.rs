//! The files of the checkout, and the findings of a rule.

use std::{fs, path::Path, sync::LazyLock};

/// A text file, with its path from the root of the checkout.
pub struct File {
    pub path: String,
    pub text: String,
}

/// What is wrong in a line.
#[derive(Debug, PartialEq, Eq)]
pub struct Finding {
    pub line: usize,
    pub rule: String,
}

static FILES: LazyLock<Vec<File>> = LazyLock::new(|| {
    let mut files = Vec::new();
    walk(Path::new(env!("CARGO_MANIFEST_DIR")), "", &mut files);
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
});

/// Every text file but build output and the files of tools.
pub fn files() -> &'static [File] {
    assert!(FILES.iter().any(|file| file.path == "src/lib.rs"), "the checkout was not found");
    &FILES
}

/// Every file of Rust.
pub fn rust() -> impl Iterator<Item = &'static File> {
    files().iter().filter(|file| file.path.ends_with(".rs"))
}

/// The file at this path.
pub fn file(path: &str) -> &'static File {
    files().iter().find(|file| file.path == path).unwrap_or_else(|| panic!("{path} is missing"))
}

/// Fails with all findings of a rule.
pub fn demand<'f>(files: impl IntoIterator<Item = &'f File>, rule: impl Fn(&File) -> Vec<Finding>) {
    let (mut looked_at, mut wrong) = (0, Vec::new());
    for file in files {
        looked_at += 1;
        for Finding { line, rule } in rule(file) {
            wrong.push(format!("{}:{line}: {rule}", file.path));
        }
    }
    assert!(looked_at > 0, "the rule saw no file at all");
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

impl File {
    /// The lines, numbered from 1.
    pub fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(index, line)| (index + 1, line))
    }

    /// A file that exists only to try a rule on.
    pub fn sample(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }
}

impl Finding {
    pub fn new(line: usize, rule: impl Into<String>) -> Self {
        Self { line, rule: rule.into() }
    }
}

fn walk(directory: &Path, prefix: &str, files: &mut Vec<File>) {
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        let (path, kind) = (format!("{prefix}{name}"), entry.file_type().unwrap());
        if kind.is_dir() {
            // Cargo marks its target directories, wherever they are.
            let built = entry.path().join("CACHEDIR.TAG").exists() || path == "target";
            let tools = name.starts_with('.') && name != ".ci";
            if !built && !tools {
                walk(&entry.path(), &format!("{path}/"), files);
            }
        } else if kind.is_file()
            // A worktree's, which names the disk it is on.
            && name != ".git"
            && let Ok(text) = fs::read_to_string(entry.path())
        {
            files.push(File { path, text });
        }
    }
}
