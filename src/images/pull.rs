//! Pulls an image. Everything is verified by digests: the manifest by that of the reference, each layer by that of the
//! manifest.

use std::{io, time::Duration};

use futures::StreamExt;
use oci_client::{
    Client, Reference,
    client::{ClientConfig, ClientProtocol, SizedStream},
    errors::OciDistributionError,
    manifest::{
        IMAGE_MANIFEST_LIST_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE, ImageIndexEntry,
        OCI_IMAGE_INDEX_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE, OciDescriptor, OciImageManifest, OciManifest,
    },
    secrets::RegistryAuth,
};
use tokio::{sync::mpsc, time::timeout};

use super::{ImageError, PulledImage, credentials::PullCredentials, error::with_causes, layers::LayerFiles};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest silence.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// For the whole image.
const PULL_TIMEOUT: Duration = Duration::from_secs(300);
/// The most that is downloaded of an image.
const MAX_DOWNLOAD: i64 = 1 << 30;
const MAX_LAYERS: usize = 500;
/// Pieces of a layer that wait to be unpacked.
const PIECES: usize = 16;

const MANIFESTS: &[&str] = &[
    OCI_IMAGE_MEDIA_TYPE,
    OCI_IMAGE_INDEX_MEDIA_TYPE,
    IMAGE_MANIFEST_MEDIA_TYPE,
    IMAGE_MANIFEST_LIST_MEDIA_TYPE,
];

/// The name of the file that a layer is, in an artifact; and that it is an archive of a folder of this name nevertheless.
const TITLE: &str = "org.opencontainers.image.title";
const UNPACK: &str = "io.deis.oras.content.unpack";

/// A reference that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageReference(Reference);

impl ImageReference {
    /// Reads a reference. As for a pod, one without a host is of Docker Hub, and one without tag and digest has `latest`.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(text: &str) -> Result<Self, ImageError> {
        let why = |error: oci_client::ParseError| error.to_string();
        let wrong = |why| ImageError::Reference { reference: text.to_owned(), why };
        text.parse().map(Self).map_err(|error| wrong(why(error)))
    }

    /// The host of the container registry, and the port, if it is named.
    pub fn host(&self) -> &str {
        self.0.registry()
    }

    /// The repository there.
    pub fn repository(&self) -> &str {
        self.0.repository()
    }

    /// The digest that it names.
    pub fn digest(&self) -> Option<&str> {
        self.0.digest()
    }

    /// Whether the container registry is on this machine: no traffic leaves it.
    fn is_loopback(&self) -> bool {
        let host = self.host().rsplit_once(':').map_or(self.host(), |(host, _)| host);
        host == "localhost" || host.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
    }
}

/// What is pulled.
#[derive(Clone, Debug)]
pub struct ImagePull {
    /// The image.
    pub reference: ImageReference,
    /// The digest that was recorded for its tag.
    pub recorded: Option<String>,
    /// The folder with the files.
    pub path: String,
    /// Whether HTTP without TLS is allowed.
    pub plain_http: bool,
    /// Who pulls.
    pub credentials: PullCredentials,
}

/// Pulls the files of an image, in a bounded time. Layers take a bounded memory; a manifest and a token are read as a whole by
/// the library, so that a hostile container registry can fill the memory that the pod has.
///
/// # Errors
/// Why there are none.
pub async fn pull(request: &ImagePull) -> Result<PulledImage, ImageError> {
    let Ok(result) = timeout(PULL_TIMEOUT, Pull::begin(request)?.run()).await else {
        let why = format!("it took longer than {} seconds", PULL_TIMEOUT.as_secs());
        return Err(ImageError::Unreachable { reference: request.reference.0.whole(), why });
    };
    result
}

/// One pull.
struct Pull<'a> {
    client: Client,
    reference: Reference,
    auth: RegistryAuth,
    request: &'a ImagePull,
}

impl<'a> Pull<'a> {
    fn begin(request: &'a ImagePull) -> Result<Self, ImageError> {
        let image = &request.reference;
        let protocol = if request.plain_http || image.is_loopback() {
            ClientProtocol::Http
        } else {
            ClientProtocol::Https
        };
        let config = ClientConfig {
            protocol,
            connect_timeout: Some(CONNECT_TIMEOUT),
            read_timeout: Some(READ_TIMEOUT),
            user_agent: concat!("tenantry/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        };
        let reference = match (&request.recorded, image.digest()) {
            (Some(digest), None) => image.0.clone_with_digest(digest.clone()),
            _ => image.0.clone(),
        };
        let auth = match request.credentials.clone() {
            PullCredentials::Anonymous => RegistryAuth::Anonymous,
            PullCredentials::Basic(user, password) => RegistryAuth::Basic(user, password),
            PullCredentials::Token(token) => RegistryAuth::Bearer(token),
        };
        let client = Client::try_from(config)
            .map_err(|error| ImageError::of_registry(&reference.whole(), &error, false))?;
        Ok(Self { client, reference, auth, request })
    }

    async fn run(self) -> Result<PulledImage, ImageError> {
        let (manifest, digest) = self.manifest(&self.reference).await?;
        let manifest = match manifest {
            OciManifest::Image(manifest) => manifest,
            OciManifest::ImageIndex(index) => {
                let Some(chosen) = platform(&index.manifests) else {
                    return Err(self.content("its index has no image for Linux: push one".to_owned()));
                };
                match self.manifest(&self.reference.clone_with_digest(chosen.to_owned())).await? {
                    (OciManifest::Image(manifest), _) => manifest,
                    (OciManifest::ImageIndex(_), _) => {
                        return Err(self.content("its index names another index: name that one".to_owned()));
                    }
                }
            }
        };
        self.check(&manifest)?;
        let mut files = LayerFiles::new(&self.request.path);
        for layer in &manifest.layers {
            files = self.layer(layer, files).await?;
        }
        let files = files.finish().map_err(|why| self.content(why))?;
        Ok(PulledImage { digest, files })
    }

    /// A manifest, and its digest. With a digest in the reference, the content was verified by it.
    async fn manifest(&self, reference: &Reference) -> Result<(OciManifest, String), ImageError> {
        let pulled = self.client.pull_manifest_raw(reference, &self.auth, MANIFESTS).await;
        let (bytes, digest) = pulled.map_err(|error| self.registry(&error))?;
        let manifest = serde_json::from_slice(&bytes).map_err(|error| {
            self.content(format!("its manifest is neither of an image nor an artifact: {error}"))
        })?;
        // That of the reference is what was verified; the answer's header may have another algorithm.
        Ok((manifest, reference.digest().map_or(digest, str::to_owned)))
    }

    fn check(&self, manifest: &OciImageManifest) -> Result<(), ImageError> {
        let sizes = manifest.layers.iter().map(|layer| layer.size.max(0));
        if manifest.layers.len() > MAX_LAYERS || sizes.fold(0, i64::saturating_add) > MAX_DOWNLOAD {
            let why =
                "it has more than 500 layers or 1 GiB: make an image or an artifact of the migrations alone";
            return Err(self.content(why.to_owned()));
        }
        Ok(())
    }

    /// Downloads a layer, and unpacks it meanwhile.
    async fn layer(&self, layer: &OciDescriptor, files: LayerFiles) -> Result<LayerFiles, ImageError> {
        let kind = kind(layer).map_err(|why| self.content(why))?;
        // By the digest alone: the addresses that a manifest may name for a layer are not followed.
        let stream = self.client.pull_blob_stream(&self.reference, layer.digest.as_str()).await;
        let stream = stream.map_err(|error| match self.registry(&error) {
            ImageError::NotFound { reference, .. } => {
                ImageError::Unreachable { reference, why: format!("layer {} is missing there", layer.digest) }
            }
            other => other,
        })?;
        let (sender, receiver) = mpsc::channel(PIECES);
        let unpacking = tokio::task::spawn_blocking(move || {
            let (mut files, content) = (files, Received { receiver, piece: Vec::new(), at: 0 });
            let added = match kind {
                LayerKind::File(title) => files.add_file(&title, content),
                LayerKind::Archive => files.add_archive(content),
            };
            added.map(|()| files)
        });
        let downloaded = download(stream, layer.size, sender).await;
        let unpacked = unpacking.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        // What was unpacked of a layer that is not complete is of no interest.
        downloaded.map_err(|error| {
            let (reference, why) = (self.reference.whole(), with_causes(&error));
            ImageError::Unreachable { reference, why: format!("layer {}: {why}", layer.digest) }
        })?;
        unpacked.map_err(|error| self.content(format!("layer {}: {error}", layer.digest)))
    }

    fn registry(&self, error: &OciDistributionError) -> ImageError {
        let is_recorded = self.request.reference.digest().is_none() && self.request.recorded.is_some();
        ImageError::of_registry(&self.reference.whole(), error, is_recorded)
    }

    fn content(&self, why: String) -> ImageError {
        ImageError::Content { reference: self.reference.whole(), why }
    }
}

/// Sends a layer to the task that unpacks it, up to its size. Its end is there only if its digest is right.
async fn download(mut stream: SizedStream, size: i64, sender: mpsc::Sender<Vec<u8>>) -> io::Result<()> {
    let mut left = u64::try_from(size).unwrap_or_default();
    while let Some(piece) = stream.next().await {
        let piece = piece?.to_vec();
        left = left
            .checked_sub(piece.len() as u64)
            .ok_or_else(|| io::Error::other("it is longer than its manifest says"))?;
        // Unpacking failed, and says why.
        if sender.send(piece).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// The pieces of a layer as they arrive.
struct Received {
    receiver: mpsc::Receiver<Vec<u8>>,
    piece: Vec<u8>,
    at: usize,
}

impl io::Read for Received {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() {
            let Some(piece) = self.receiver.blocking_recv() else { return Ok(0) };
            (self.piece, self.at) = (piece, 0);
        }
        let read = io::Read::read(&mut &self.piece[self.at..], buffer)?;
        self.at += read;
        Ok(read)
    }
}

/// What a layer is.
#[derive(Debug, PartialEq, Eq)]
enum LayerKind {
    /// A file of an artifact, by its name.
    File(String),
    /// A tar archive, compressed or not.
    Archive,
}

fn kind(layer: &OciDescriptor) -> Result<LayerKind, String> {
    let annotation = |name: &str| layer.annotations.as_ref()?.get(name);
    match annotation(TITLE) {
        // `oras push` calls every file an archive, and marks those that are.
        Some(title) if annotation(UNPACK).is_none_or(|unpack| unpack != "true") => {
            Ok(LayerKind::File(title.clone()))
        }
        None if !layer.media_type.contains("tar") => Err(format!(
            "a layer of type {:?} is neither a tar archive nor a file with the annotation {TITLE}: push files with `oras push`, or build an image",
            layer.media_type
        )),
        _ => Ok(LayerKind::Archive),
    }
}

/// The digest of the image for Linux, on the own architecture if there is one: the files are the same on all.
fn platform(entries: &[ImageIndexEntry]) -> Option<&str> {
    let own = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let rank = |entry: &&ImageIndexEntry| match &entry.platform {
        Some(platform) if platform.os.to_string() == "linux" => {
            Some(u8::from(platform.architecture.to_string() != own))
        }
        // An artifact has no platform; a signature or a proof of origin has an unknown one.
        None => Some(2),
        Some(_) => None,
    };
    let ranked = entries.iter().filter_map(|entry| Some((rank(&entry)?, entry)));
    ranked.min_by_key(|(rank, _)| *rank).map(|(_, entry)| entry.digest.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn references_are_those_of_pods() {
        let read = |text: &str| {
            let image = ImageReference::parse(text).unwrap();
            (image.host().to_owned(), image.repository().to_owned(), image.is_loopback())
        };
        let of = |host: &str, repository: &str, loopback| (host.to_owned(), repository.to_owned(), loopback);
        assert_eq!(read("registry.example/app/m:v1"), of("registry.example", "app/m", false));
        assert_eq!(read("app/m"), of("docker.io", "app/m", false));
        for host in ["127.0.0.1:5000", "localhost:5000", "127.1.2.3:80"] {
            assert_eq!(read(&format!("{host}/m:v1")), of(host, "m", true));
        }
        assert!(!read("localhost.example:5000/m").2 && !read("10.0.0.1:5000/m").2);
        for text in ["registry.example/App:v1", "a b", "m@sha256:1"] {
            let error = ImageReference::parse(text).unwrap_err().to_string();
            assert!(error.contains("is no reference of an image") && error.contains("@sha256:…"), "{error}");
        }
    }

    #[test]
    fn titles_make_files_and_marked_ones_archives() {
        let layer = |media_type: &str, annotations: serde_json::Value| -> OciDescriptor {
            let value =
                json!({"mediaType": media_type, "digest": "sha256:0", "size": 1, "annotations": annotations});
            serde_json::from_value(value).unwrap()
        };
        let tar = "application/vnd.oci.image.layer.v1.tar";
        let file = Ok(LayerKind::File("0001_a.sql".to_owned()));
        assert_eq!(kind(&layer(tar, json!({TITLE: "0001_a.sql"}))), file);
        assert_eq!(kind(&layer("application/sql", json!({TITLE: "0001_a.sql"}))), file);
        assert_eq!(kind(&layer(tar, json!({TITLE: "migrations", UNPACK: "true"}))), Ok(LayerKind::Archive));
        for media_type in [
            tar,
            "application/vnd.docker.image.rootfs.diff.tar.gzip",
            "application/vnd.oci.image.layer.v1.tar+zstd",
        ] {
            assert_eq!(kind(&layer(media_type, json!({}))), Ok(LayerKind::Archive));
        }
        assert!(kind(&layer("application/wasm", json!({}))).unwrap_err().contains("oras push"));
    }

    #[test]
    fn image_of_an_index_is_for_linux() {
        let entry = |digest: &str, platform: serde_json::Value| -> ImageIndexEntry {
            let mut value = json!({"mediaType": OCI_IMAGE_MEDIA_TYPE, "digest": digest, "size": 1});
            if !platform.is_null() {
                value["platform"] = platform;
            }
            serde_json::from_value(value).unwrap()
        };
        let on = |os: &str, architecture: &str| json!({"os": os, "architecture": architecture});
        let all = [
            entry("unknown", on("unknown", "unknown")),
            entry("windows", on("windows", "amd64")),
            entry("none", json!(null)),
            entry("s390x", on("linux", "s390x")),
            entry("amd64", on("linux", "amd64")),
            entry("arm64", on("linux", "arm64")),
        ];
        let own = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        assert_eq!(platform(&all), Some(own));
        assert_eq!(platform(&all[..4]), Some("s390x"));
        assert_eq!(platform(&all[..3]), Some("none"));
        assert_eq!(platform(&all[..2]), None);
    }
}
