//! The files of an image under one path, from its layers. Nothing is written to a disk, and links are never followed. Pure.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, BufReader, Read},
};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::StreamingDecoder;
use tar::{Archive, EntryType};

use super::ImageFile;

/// The most that the layers of an image unpack to.
const MAX_UNPACKED: u64 = 2 << 30;
/// The most that is kept of an image.
const MAX_KEPT: usize = 64 << 20;
/// A file that is longer is cut here: the check of the module's files refuses it.
const MAX_FILE: u64 = (1 << 20) + 1;
/// The number of files: more have no number of four digits.
const MAX_FILES: usize = 10_000;

/// What marks a deleted file of a lower layer, and a folder all of whose files in lower layers are deleted.
const DELETED: &str = ".wh.";
const ALL_DELETED: &str = ".wh..wh..opq";

/// Collects the files, layer by layer.
#[derive(Debug)]
pub struct LayerFiles {
    /// The path, without slashes at its ends.
    folder: String,
    kept: BTreeMap<String, Kept>,
    unpacked: u64,
}

#[derive(Debug)]
enum Kept {
    File(Vec<u8>),
    Link,
}

impl LayerFiles {
    /// For the files directly in a folder of the image.
    pub fn new(folder: &str) -> Self {
        let folder = parts(folder).unwrap_or_default().join("/");
        Self { folder, kept: BTreeMap::new(), unpacked: 0 }
    }

    /// Adds a layer that is one file, named by its title.
    pub fn add_file(&mut self, title: &str, mut content: impl Read) -> io::Result<()> {
        let mut bytes = Vec::new();
        if let Some(name) = parts(title).and_then(|parts| self.name_of(&parts)) {
            content.by_ref().take(MAX_FILE).read_to_end(&mut bytes)?;
            self.kept.insert(name, Kept::File(bytes));
            self.check()?;
        }
        drain(content)
    }

    /// Adds a layer that is a tar archive, compressed or not: its files are on top of those of the layers before.
    pub fn add_archive(&mut self, layer: impl Read) -> io::Result<()> {
        let mut layer = BufReader::new(layer);
        let (upper, unpacked) = {
            let head = layer.fill_buf()?;
            if head.starts_with(&[0x1f, 0x8b]) {
                self.unpack(MultiGzDecoder::new(&mut layer))?
            } else if head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
                let decoder = StreamingDecoder::new(&mut layer).map_err(io::Error::other)?;
                self.unpack(decoder)?
            } else {
                self.unpack(&mut layer)?
            }
        };
        self.unpacked = unpacked;
        self.kept.extend(upper);
        self.check()?;
        drain(layer)
    }

    /// The files, by name.
    ///
    /// # Errors
    /// One is a link.
    pub fn finish(self) -> Result<Vec<ImageFile>, String> {
        let mut files = Vec::new();
        for (name, kept) in self.kept {
            match kept {
                Kept::File(bytes) => files.push(ImageFile { name, bytes }),
                Kept::Link => return Err(format!("{name} is a link: add the file itself to the image")),
            }
        }
        Ok(files)
    }

    /// The files of a layer; those of lower ones that it deletes or replaces are removed.
    fn unpack(&mut self, archive: impl Read) -> io::Result<(BTreeMap<String, Kept>, u64)> {
        let mut counted = Counted { inner: archive, count: self.unpacked };
        let mut upper = BTreeMap::new();
        let mut total = self.kept.len();
        {
            let mut archive = Archive::new(&mut counted);
            for entry in archive.entries()? {
                let mut entry = entry?;
                let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
                let Some(path) = parts(&path) else { continue };
                let kind = entry.header().entry_type();
                if matches!(kind, EntryType::XGlobalHeader | EntryType::XHeader) {
                    continue;
                }
                let (name, parents) = match path.split_last() {
                    Some((name, parents)) => (*name, parents),
                    None => continue,
                };
                if name == ALL_DELETED {
                    if self.is_in(parents) {
                        self.kept.clear();
                    }
                    continue;
                }
                if let Some(deleted) = name.strip_prefix(DELETED) {
                    let deleted: Vec<&str> = parents.iter().copied().chain([deleted]).collect();
                    self.remove(&deleted, &mut BTreeMap::new());
                    continue;
                }
                let is_folder = kind.is_dir();
                if !is_folder || self.name_of(&path).is_some() {
                    self.remove(&path, &mut upper);
                }
                let Some(name) = self.name_of(&path).filter(|_| !is_folder) else { continue };
                if kind.is_symlink() || kind.is_hard_link() {
                    upper.insert(name, Kept::Link);
                } else if kind.is_file() || kind.is_contiguous() {
                    let mut bytes = Vec::new();
                    entry.by_ref().take(MAX_FILE).read_to_end(&mut bytes)?;
                    total += 1;
                    upper.insert(name, Kept::File(bytes));
                }
                if total > MAX_FILES || size(&upper) > MAX_KEPT {
                    return Err(too_large());
                }
            }
        }
        Ok((upper, counted.count))
    }

    /// Removes a path, and what is under it.
    fn remove(&mut self, path: &[&str], upper: &mut BTreeMap<String, Kept>) {
        if let Some(name) = self.name_of(path) {
            self.kept.remove(&name);
            upper.remove(&name);
        } else if self.is_in(path) {
            self.kept.clear();
            upper.clear();
        }
    }

    /// The name of a file that is directly in the folder, and not hidden.
    fn name_of(&self, path: &[&str]) -> Option<String> {
        let (name, parents) = path.split_last()?;
        (parents.join("/") == self.folder && !name.starts_with('.')).then(|| (*name).to_owned())
    }

    /// Whether the folder is this path, or under it.
    fn is_in(&self, path: &[&str]) -> bool {
        let path = path.join("/");
        path.is_empty()
            || self.folder.strip_prefix(&path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    fn check(&self) -> io::Result<()> {
        if self.kept.len() > MAX_FILES || size(&self.kept) > MAX_KEPT {
            return Err(too_large());
        }
        Ok(())
    }
}

fn too_large() -> io::Error {
    io::Error::other(
        "the path has more than 10000 files or 64 MiB: name the folder of the migrations in spec.source.image.path",
    )
}

fn size(files: &BTreeMap<String, Kept>) -> usize {
    let size = |kept: &Kept| match kept {
        Kept::File(bytes) => bytes.len(),
        Kept::Link => 0,
    };
    files.values().map(size).sum()
}

/// The parts of a path; none for one that leaves the image.
fn parts(path: &str) -> Option<Vec<&str>> {
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    (!parts.contains(&"..")).then_some(parts)
}

/// Reads what is left, so that the digest of the whole is verified.
fn drain(mut rest: impl Read) -> io::Result<()> {
    io::copy(&mut rest, &mut io::sink()).map(drop)
}

/// Counts the bytes of all layers, up to the maximum.
struct Counted<R> {
    inner: R,
    count: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.count += read as u64;
        if self.count > MAX_UNPACKED {
            return Err(io::Error::other(
                "it unpacks to more than 2 GiB: make an image or an artifact of the migrations alone",
            ));
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};
    use tar::{Builder, Header};

    /// A layer: a path that ends with '/' is a folder, and one with '>' a symbolic link.
    fn layer(entries: &[(&str, &str)]) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        for (path, content) in entries {
            let mut header = Header::new_gnu();
            let (path, kind) = match path.strip_suffix('>') {
                Some(path) => (path, EntryType::Symlink),
                None if path.ends_with('/') => (*path, EntryType::Directory),
                None => (*path, EntryType::Regular),
            };
            header.set_entry_type(kind);
            header.set_mode(0o644);
            // As it is written: the builder refuses a path that leaves the archive.
            header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
            if kind == EntryType::Symlink {
                header.set_link_name(content).unwrap();
            }
            let content = if kind == EntryType::Regular { content.as_bytes() } else { b"" };
            header.set_size(content.len() as u64);
            header.set_cksum();
            builder.append(&header, content).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn files(folder: &str, layers: &[&[(&str, &str)]]) -> Vec<(String, String)> {
        let mut files = LayerFiles::new(folder);
        for entries in layers {
            files.add_archive(layer(entries).as_slice()).unwrap();
        }
        let file = |file: ImageFile| (file.name, String::from_utf8(file.bytes).unwrap());
        files.finish().unwrap().into_iter().map(file).collect()
    }

    fn names(folder: &str, layers: &[&[(&str, &str)]]) -> Vec<String> {
        files(folder, layers).into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn files_of_the_folder_are_taken_and_no_others() {
        let base: &[(&str, &str)] = &[
            ("migrations/", ""),
            ("./migrations/0001_a.sql", "a"),
            ("/migrations/0002_b.sql", "b"),
            ("migrations/.hidden", "x"),
            ("migrations/old/0003_c.sql", "x"),
            ("0004_d.sql", "d"),
            ("migrations/../../etc/passwd", "x"),
        ];
        for folder in ["/migrations", "migrations/", "/./migrations"] {
            let expected = [("0001_a.sql", "a"), ("0002_b.sql", "b")];
            assert_eq!(files(folder, &[base]), expected.map(|(name, sql)| (name.into(), sql.into())));
        }
        assert_eq!(names("/", &[base]), ["0004_d.sql"]);
        assert_eq!(names("/migrations/old", &[base]), ["0003_c.sql"]);
        assert_eq!(names("/none", &[base]), [""; 0]);
    }

    #[test]
    fn upper_layers_replace_and_delete() {
        let base: &[(&str, &str)] = &[("m/0001_a.sql", "a"), ("m/0002_b.sql", "b"), ("m/0003_c.sql", "c")];
        assert_eq!(files("/m", &[base, &[("m/0002_b.sql", "B")]])[1].1, "B");
        assert_eq!(names("/m", &[base, &[("m/.wh.0002_b.sql", "")]]), ["0001_a.sql", "0003_c.sql"]);
        assert_eq!(names("/m", &[base, &[(".wh.m", "")]]), [""; 0]);
        // What the same layer has stays, whatever the order.
        let replaced: &[(&str, &str)] = &[("m/0001_n.sql", "n"), ("m/.wh..wh..opq", "")];
        assert_eq!(names("/m", &[base, replaced]), ["0001_n.sql"]);
        assert_eq!(names("/m", &[base, &[("other/.wh..wh..opq", "")]]).len(), 3);
        // The folder became a file, or a link.
        assert_eq!(names("/m", &[base, &[("m", "x")]]), [""; 0]);
        assert_eq!(names("/m", &[base, &[("m>", "/etc")]]), [""; 0]);
        assert_eq!(names("/m", &[base, &[("m/0002_b.sql/", "")]]), ["0001_a.sql", "0003_c.sql"]);
        assert_eq!(names("/m", &[base, &[("m/", "")]]).len(), 3);
    }

    #[test]
    fn links_are_refused_and_not_followed() {
        let mut files = LayerFiles::new("/m");
        files.add_archive(layer(&[("m/0001_a.sql>", "/etc/passwd")]).as_slice()).unwrap();
        assert_eq!(files.finish().unwrap_err(), "0001_a.sql is a link: add the file itself to the image");
    }

    #[test]
    fn compression_is_recognized_by_the_content() {
        let tar = layer(&[("0001_a.sql", "a")]);
        let gzip = |bytes: &[u8]| {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        };
        // As some builders write it: several members, one after the other.
        let (first, second) = tar.split_at(600);
        let members = [gzip(first), gzip(second)].concat();
        for bytes in
            [tar.clone(), gzip(&tar), members, compress_to_vec(tar.as_slice(), CompressionLevel::Fastest)]
        {
            let mut files = LayerFiles::new("/");
            files.add_archive(bytes.as_slice()).unwrap();
            assert_eq!(files.finish().unwrap().len(), 1);
        }
        assert!(LayerFiles::new("/").add_archive(&gzip(&tar)[..60]).is_err(), "cut off");
        assert!(LayerFiles::new("/").add_archive(&b"no archive".repeat(100)[..]).is_err());
    }

    #[test]
    fn sizes_are_bounded() {
        let bomb = io::repeat(0).take(MAX_UNPACKED + (1 << 20));
        let mut counted = Counted { inner: bomb, count: MAX_UNPACKED - (1 << 20) };
        let error = io::copy(&mut counted, &mut io::sink()).unwrap_err();
        assert!(error.to_string().contains("2 GiB"), "{error}");
        let mut files = LayerFiles::new("/");
        let fit = MAX_KEPT as u64 / MAX_FILE;
        for number in 0..=fit {
            let title = format!("{number:04}_a.sql");
            let added = files.add_file(&title, io::repeat(b'x').take(2 << 20));
            assert_eq!(added.is_ok(), number < fit, "{number}");
        }
    }

    #[test]
    fn title_of_an_artifact_is_the_name() {
        let mut files = LayerFiles::new("/");
        for title in ["0002_b.sql", "./0001_a.sql", "dir/0003_c.sql", "../0004_d.sql", ".hidden"] {
            files.add_file(title, &b"x"[..]).unwrap();
        }
        let names: Vec<String> = files.finish().unwrap().into_iter().map(|file| file.name).collect();
        assert_eq!(names, ["0001_a.sql", "0002_b.sql"]);
    }
}
