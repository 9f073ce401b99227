//! `sqlx::migrate!` reads a directory; without this, cargo would not notice a new file in it.

fn main() {
    println!("cargo::rerun-if-changed=migrations");
}
