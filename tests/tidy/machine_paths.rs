//! Nothing of one machine or one network is committed: no path of a disk, no mirror, no proxy.

use crate::tree::{self, File, Finding};

/// Beginnings of paths that exist on one machine only; in two pieces, so that this file is not found itself.
const DISKS: [(&str, &str); 4] = [("/ro", "ot/"), ("/wo", "rk/"), ("/ho", "me/"), ("/Us", "ers/")];

/// Hosts that a file may name. Another host is that of a private network, or must be listed here first.
const HOSTS: [&str; 14] = [
    "127.0.0.1",
    "docs.rs",
    "external-secrets.io",
    "github.com",
    "index.docker.io",
    "json-schema.org",
    "keepachangelog.com",
    "kubernetes.default.svc",
    "kubernetes.io",
    "localhost",
    "raw.githubusercontent.com",
    "semver.org",
    "truststore.pki.rds.amazonaws.com",
    "www.apache.org",
];

/// Registries, which a machine may reach by another name; in two pieces as well.
const REGISTRIES: [(&str, &str); 4] =
    [("proxy.gol", "ang"), ("repo1.ma", "ven"), ("static.cra", "tes.io"), ("index.cra", "tes.io")];

/// Made by tools, and full of hosts and hashes; Cargo.lock has a rule of its own.
const GENERATED: [&str; 2] = ["Cargo.lock", "dev/controlplane/go.sum"];

#[test]
fn no_machine_and_no_network_is_named() {
    let files = tree::files().iter().filter(|file| !GENERATED.contains(&file.path.as_str()));
    tree::demand(files, machines);
}

fn machines(file: &File) -> Vec<Finding> {
    let mut found = Vec::new();
    for (number, line) in file.lines() {
        for (one, two) in DISKS {
            let disk = format!("{one}{two}");
            if line.match_indices(&disk).any(|(at, _)| begins_a_path(&line[..at])) {
                found.push(Finding::new(number, format!("{disk}…: a path of one machine")));
            }
        }
        for (one, two) in REGISTRIES {
            if line.contains(&format!("{one}{two}")) {
                found.push(Finding::new(number, format!("{one}{two}: a registry is chosen by the machine")));
            }
        }
        for scheme in ["http://", "https://"] {
            for (at, _) in line.match_indices(scheme) {
                let host = host(&line[at + scheme.len()..]);
                let example = host == "example" || host.ends_with(".example");
                // A Service of the cluster.
                let in_cluster = host.ends_with(".tenantry-system");
                // A host that is filled in later.
                let filled_in = host.is_empty() || host == "HOST";
                if !(HOSTS.contains(&host) || example || in_cluster || filled_in) {
                    let rule = format!("{host}: not one of the hosts that tests/tidy/machine_paths.rs lists");
                    found.push(Finding::new(number, rule));
                }
            }
        }
    }
    found
}

/// Whether a path that follows this text is an absolute one, and not the rest of a longer one.
fn begins_a_path(before: &str) -> bool {
    !before.ends_with(|c: char| c.is_ascii_alphanumeric() || "._-}$~<>".contains(c))
}

fn host(rest: &str) -> &str {
    let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '.' || c == '-')).unwrap_or(rest.len());
    rest[..end].trim_end_matches('.')
}

#[test]
fn machine_paths_and_hosts_are_found() {
    let sees = |line: &str| machines(&File::sample("README.md", line)).len();
    let (one, two) = DISKS[0];
    assert_eq!(sees(&format!("see {one}{two}notes")), 1);
    assert_eq!(sees(&format!("\"{}{}x\"", DISKS[1].0, DISKS[1].1)), 1);
    assert_eq!(sees(&format!("target{}{}x", DISKS[1].0, DISKS[1].1)), 0);
    assert_eq!(sees(&format!("GOPROXY={}{}.org", REGISTRIES[0].0, REGISTRIES[0].1)), 1);
    assert_eq!(sees(concat!("https", "://mirror.corp.test/simple/")), 1);
    assert_eq!(sees(concat!("http", "://10.0.0.1:3128")), 1);
    assert_eq!(
        sees("https://github.com/x, http://127.0.0.1:{port}, https://hooks.acme.example/, http://{host}"),
        0
    );
}
