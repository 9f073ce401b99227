//! The operator's image as an OCI layout: the binary, the certificates of public authorities, the time zones and a user.
//! Nothing in it depends on the machine or the time, so the same binary makes the same digest.

mod bom;
mod layer;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::error::{Context, Result};
use layer::Layer;

/// The user of the image, which is not root and has no home: the chart's `runAsUser`.
const USER: u32 = 65_532;

/// What an image is made of.
#[derive(Debug, clap::Args)]
pub struct ImageOptions {
    /// The operator's binary, linked statically.
    #[arg(long)]
    binary: PathBuf,
    /// The architecture in OCI's words: amd64, arm64.
    #[arg(long)]
    architecture: String,
    /// The directory of the layout and the bill of materials.
    #[arg(long)]
    to: PathBuf,
}

/// Writes the image and its bill of materials, and prints its digest and its size.
pub async fn write(options: &ImageOptions) -> Result<()> {
    let layout = options.to.join("layout");
    if layout.exists() {
        std::fs::remove_dir_all(&layout).at("removing", &layout)?;
    }
    let blobs = Blobs { directory: layout.join("blobs/sha256") };
    std::fs::create_dir_all(&blobs.directory).at("creating", &blobs.directory)?;

    let program = std::fs::read(&options.binary).at("reading", &options.binary)?;
    // What changes rarely comes first: clients that have it do not fetch it again.
    let layers = [Layer::base()?, Layer::program(&program)?];
    let mut size = 0;
    let mut described = Vec::new();
    for layer in &layers {
        size += layer.compressed.len();
        described.push(blobs.write("application/vnd.oci.image.layer.v1.tar+gzip", &layer.compressed)?);
    }
    let configuration = configuration(&options.architecture, &layers);
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blobs.write("application/vnd.oci.image.config.v1+json", configuration.to_string().as_bytes())?,
        "layers": described,
    });
    let mut entry =
        blobs.write("application/vnd.oci.image.manifest.v1+json", manifest.to_string().as_bytes())?;
    let digest = entry["digest"].as_str().unwrap_or_default().to_owned();
    entry["platform"] = json!({"os": "linux", "architecture": options.architecture});
    entry["annotations"] = json!({
        "org.opencontainers.image.ref.name": env!("CARGO_PKG_VERSION"),
        // The name that containerd gives it when it loads the layout as an archive: `kind load image-archive`.
        "io.containerd.image.name": concat!("localhost/tenantry:", env!("CARGO_PKG_VERSION")),
    });
    let index = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [entry],
    });
    write_file(&layout.join("index.json"), index.to_string().as_bytes())?;
    write_file(&layout.join("oci-layout"), json!({"imageLayoutVersion": "1.0.0"}).to_string().as_bytes())?;

    let bill = options.to.join("sbom.cdx.json");
    write_file(&bill, serde_json::to_string_pretty(&bom::of_operator(&digest).await?)?.as_bytes())?;
    println!(
        "{}\n  {digest}\n  {:.1} MB compressed, the binary {:.1} MB; {} has what it is made of",
        layout.display(),
        megabytes(size),
        megabytes(program.len()),
        bill.display()
    );
    Ok(())
}

fn configuration(architecture: &str, layers: &[Layer]) -> Value {
    json!({
        "created": "1970-01-01T00:00:00Z",
        "os": "linux",
        "architecture": architecture,
        "config": {
            "User": format!("{USER}:{USER}"),
            "Entrypoint": ["/tenantry"],
            "WorkingDir": "/",
            "Env": ["PATH=/"],
            "ExposedPorts": {"8080/tcp": {}},
            "Labels": {
                "org.opencontainers.image.title": "tenantry",
                "org.opencontainers.image.version": env!("CARGO_PKG_VERSION"),
                "org.opencontainers.image.licenses": "Apache-2.0",
            },
        },
        "rootfs": {"type": "layers", "diff_ids": layers.iter().map(|layer| &layer.id).collect::<Vec<_>>()},
        "history": layers.iter().map(|layer| json!({"created_by": layer.what})).collect::<Vec<_>>(),
    })
}

/// The content of a layout, by digest.
struct Blobs {
    directory: PathBuf,
}

impl Blobs {
    /// Writes a blob and returns its descriptor.
    fn write(&self, media_type: &str, content: &[u8]) -> Result<Value> {
        let digest = hex_digest(content);
        write_file(&self.directory.join(&digest), content)?;
        Ok(json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": content.len()}))
    }
}

fn write_file(path: &Path, content: &[u8]) -> Result<()> {
    std::fs::write(path, content).at("writing", path)
}

fn hex_digest(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[allow(clippy::cast_precision_loss)] // for a message
fn megabytes(bytes: usize) -> f64 {
    bytes as f64 / 1e6
}
