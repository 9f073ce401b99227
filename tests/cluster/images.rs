//! Modules from images: pulled from a real container registry.

use kube::{
    Api,
    api::{Patch, PatchParams},
};
use oci_client::{
    Client, Reference,
    client::{ClientConfig, ClientProtocol, Config, ImageLayer},
    errors::OciDistributionError,
    manifest::{OciImageManifest, OciManifest},
    secrets::RegistryAuth,
};
use serde_json::json;
use tenantry::{
    api::conditions::{READY, RECONCILING, find_condition},
    images::{
        ImageError,
        credentials::PullCredentials,
        pull::{ImagePull, ImageReference, pull},
    },
};
use tenantry_dev::container_registry::{ContainerRegistry, Door};

use super::modules::{Modules, has_table};

/// A layer with these files.
fn layer(files: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, path, content.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

/// Pushes an artifact as `oras push` does: a layer for each file, with its name as the title.
async fn push_artifact(registry: &ContainerRegistry, image: &str, files: &[(&str, &str)]) {
    let config =
        ClientConfig { protocol: ClientProtocol::Http, use_monolithic_push: true, ..ClientConfig::default() };
    let layers: Vec<ImageLayer> = files
        .iter()
        .map(|(name, content)| {
            let title = ("org.opencontainers.image.title".to_owned(), (*name).to_owned());
            let media_type = "application/vnd.oci.image.layer.v1.tar".to_owned();
            ImageLayer::new(content.as_bytes().to_vec(), media_type, Some([title].into()))
        })
        .collect();
    let empty = Config::new(b"{}".to_vec(), "application/vnd.oci.empty.v1+json".to_owned(), None);
    let mut manifest = OciImageManifest::build(&layers, &empty, None);
    manifest.artifact_type = Some("application/vnd.example.migrations".to_owned());
    let reference: Reference = format!("{}/{image}", registry.inside()).parse().unwrap();
    let client = Client::new(config);
    client.store_auth_if_needed(reference.resolve_registry(), &RegistryAuth::Anonymous).await;
    for layer in &layers {
        pushed(client.push_blob(&reference, layer.data.clone(), &layer.sha256_digest()).await);
    }
    pushed(client.push_blob(&reference, empty.data.clone(), &empty.sha256_digest()).await);
    pushed(client.push_manifest(&reference, &OciManifest::Image(manifest)).await);
}

/// This container registry does not say where it put something.
fn pushed(result: Result<String, OciDistributionError>) {
    match result {
        Ok(_) | Err(OciDistributionError::RegistryNoLocationError) => {}
        Err(error) => panic!("{error}"),
    }
}

fn use_ring() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

fn request(registry: &ContainerRegistry, image: &str, credentials: PullCredentials) -> ImagePull {
    ImagePull {
        reference: ImageReference::parse(&format!("{}/{image}", registry.host())).unwrap(),
        recorded: None,
        path: "/migrations".to_owned(),
        plain_http: false,
        credentials,
    }
}

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn image_is_pulled_and_verified() {
    use_ring();
    let registry = ContainerRegistry::start().await.unwrap();
    let base =
        layer(&[("migrations/0001_a.sql", "SELECT 1"), ("migrations/0002_b.sql", "SELECT 2"), ("app", "x")]);
    let top = layer(&[("migrations/.wh.0002_b.sql", ""), ("migrations/0002_c.sql", "SELECT 3")]);
    let digest = registry.push("pulled/app:v1", &[base, top]).await.unwrap();
    let anonymous = || PullCredentials::Anonymous;
    let pulled = pull(&request(&registry, "pulled/app:v1", anonymous())).await.unwrap();
    assert_eq!(pulled.digest, digest);
    let names: Vec<&str> = pulled.files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(names, ["0001_a.sql", "0002_c.sql"]);
    // By digest, and by the recorded digest of a tag that moved since.
    registry.push("pulled/app:v1", &[layer(&[("migrations/0001_z.sql", "SELECT 9")])]).await.unwrap();
    let by_digest = request(&registry, &format!("pulled/app@{digest}"), anonymous());
    assert_eq!(pull(&by_digest).await.unwrap(), pulled);
    let recorded = Some(digest);
    let by_record = ImagePull { recorded, ..request(&registry, "pulled/app:v1", anonymous()) };
    assert_eq!(pull(&by_record).await.unwrap(), pulled);
    // An index of several platforms.
    let host = registry.inside();
    registry
        .crane(&[
            "index",
            "append",
            "-m",
            &format!("{host}/pulled/app:v1"),
            "-t",
            &format!("{host}/pulled/all:v1"),
        ])
        .await
        .unwrap();
    assert_eq!(pull(&request(&registry, "pulled/all:v1", anonymous())).await.unwrap().files.len(), 1);
    // What is not there, and what was not allowed.
    let missing = pull(&request(&registry, "pulled/app:v9", anonymous())).await.unwrap_err();
    assert!(matches!(missing, ImageError::NotFound { is_recorded: false, .. }), "{missing}");
    registry.set(Door::Locked("robot".into(), "right".into()));
    for credentials in [anonymous(), PullCredentials::Basic("robot".into(), "wrong".into())] {
        let refused = pull(&request(&registry, "pulled/app:v1", credentials)).await.unwrap_err();
        assert!(matches!(refused, ImageError::Unauthorized { .. }), "{refused}");
    }
    let right = PullCredentials::Basic("robot".into(), "right".into());
    assert_eq!(pull(&request(&registry, "pulled/app:v1", right)).await.unwrap().files.len(), 1);
    registry.set(Door::Shut);
    let away = pull(&request(&registry, "pulled/app:v1", anonymous())).await.unwrap_err();
    assert!(matches!(away, ImageError::Unreachable { .. }), "{away}");
    registry.set(Door::Open);
    // A layer that was changed in the container registry.
    let read = |file| (std::fs::read(&file).unwrap(), file);
    for (mut bytes, file) in blobs(&registry).into_iter().map(read) {
        if !bytes.starts_with(&[0x1f, 0x8b]) {
            continue;
        }
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&file, bytes).unwrap();
    }
    let changed = pull(&request(&registry, "pulled/app:v1", anonymous())).await.unwrap_err();
    assert!(matches!(changed, ImageError::Unreachable { .. }), "{changed}");
}

fn blobs(registry: &ContainerRegistry) -> Vec<std::path::PathBuf> {
    let algorithms = std::fs::read_dir(registry.blobs()).unwrap().map(|entry| entry.unwrap().path());
    algorithms
        .filter(|path| path.is_dir())
        .flat_map(|path| {
            std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>()
        })
        .collect()
}

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn module_of_an_image_reaches_tenants_and_a_moved_tag_does_not() {
    use_ring();
    let registry = ContainerRegistry::start().await.unwrap();
    let modules = Modules::new("images-news").await;
    let first = ("migrations/0001_news.sql", "CREATE TABLE public.image_news (id integer)");
    let second = ("migrations/0002_read.sql", "ALTER TABLE public.image_news ADD COLUMN is_read boolean");
    let digest = registry.push("news:v1", &[layer(&[first])]).await.unwrap();
    let source = |tag: &str| {
        let reference = format!("{}/news:{tag}", registry.host());
        json!({"source": {"image": {"reference": reference, "path": "/migrations"}}})
    };
    modules.apply("image-news", source("v1")).await;
    let status = modules.accepted("image-news", "1").await;
    let image = status.image.unwrap();
    assert_eq!((image.reference, image.digest), (format!("{}/news:v1", registry.host()), digest.clone()));
    modules.fleet.apply("image-news-a", json!({"modules": [{"name": "image-news"}]})).await;
    modules.fleet.ready("image-news-a").await;
    modules.at("image-news-a", "image-news", 1).await;
    assert!(has_table("image-news-a", "image_news").await);
    // The tag moves: the module does not, whatever else is changed in it.
    registry.push("news:v1", &[layer(&[("migrations/0001_news.sql", "SELECT 1")])]).await.unwrap();
    let mut changed = source("v1");
    changed["default"] = json!(false);
    modules.apply("image-news", changed).await;
    assert_eq!(modules.accepted("image-news", "1").await.image.unwrap().digest, digest);
    // Another tag is another version.
    registry.push("news:v2", &[layer(&[first]), layer(&[second])]).await.unwrap();
    modules.apply("image-news", source("v2")).await;
    modules.accepted("image-news", "2").await;
    modules.at("image-news-a", "image-news", 2).await;
    // While the container registry is away, tenants keep and get what was accepted.
    registry.set(Door::Shut);
    modules.apply("image-news", source("v3")).await;
    let away = modules
        .until("image-news", "waiting", |status| {
            find_condition(&status.conditions, READY).is_some_and(|ready| ready.reason == "SourceUnreachable")
        })
        .await;
    assert_eq!(find_condition(&away.conditions, RECONCILING).unwrap().reason, "SourceUnreachable");
    modules.fleet.apply("image-news-b", json!({"modules": [{"name": "image-news"}]})).await;
    modules.fleet.ready("image-news-b").await;
    modules.at("image-news-b", "image-news", 2).await;
    // It comes back, and the image is pulled without anybody's doing.
    let third = ("migrations/0003_pinned.sql", "ALTER TABLE public.image_news ADD COLUMN pinned boolean");
    registry.push("news:v3", &[layer(&[first, second, third])]).await.unwrap();
    registry.set(Door::Open);
    modules.accepted("image-news", "3").await;
    for tenant in ["image-news-a", "image-news-b"] {
        modules.at(tenant, "image-news", 3).await;
    }
    modules.delete("image-news").await;
}

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn mistakes_with_images_are_refused_with_a_remedy() {
    use_ring();
    let registry = ContainerRegistry::start().await.unwrap();
    let modules = Modules::new("images-wrong").await;
    push_artifact(&registry, "artifact:v1", &[("0001_a.sql", "CREATE TABLE public.image_artifact ()")]).await;
    push_artifact(&registry, "readme:v1", &[("README.md", "# x")]).await;
    registry.set(Door::Locked("robot".into(), "right".into()));
    let image = |image: &str, secret: Option<&str>| {
        let mut source = json!({"reference": format!("{}/{image}", registry.host())});
        if let Some(name) = secret {
            source["pullSecretRef"] = json!({"name": name});
        }
        json!({"source": {"image": source}})
    };
    let secrets = Api::<k8s_openapi::api::core::v1::Secret>::namespaced(
        modules.fleet.client.clone(),
        "tenantry-system",
    );
    for (name, password) in [("image-wrong", "wrong"), ("image-right", "right")] {
        let config = json!({"auths": {registry.host(): {"username": "robot", "password": password}}});
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name},
            "type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": config.to_string()}});
        secrets.patch(name, &PatchParams::apply("tests").force(), &Patch::Apply(secret)).await.unwrap();
    }
    for (source, reason, words) in [
        (
            image("artifact:v1", None),
            "SourceUnauthorized",
            "name a Secret of type kubernetes.io/dockerconfigjson",
        ),
        (image("artifact:v1", Some("image-none")), "SecretNotFound", "there is no Secret \"image-none\""),
        (image("artifact:v1", Some("image-wrong")), "SourceUnauthorized", "refuses access"),
        (image("artifact:v2", Some("image-right")), "SourceNotFound", "push it, or correct the reference"),
        (image("readme:v1", Some("image-right")), "InvalidFile", "\"README.md\" is not the name of a file"),
        (image("Artifact:v1", Some("image-right")), "InvalidSpec", "is no reference of an image"),
    ] {
        modules.apply("image-wrong", source).await;
        let message = modules.refused("image-wrong", reason).await;
        assert!(message.contains(words), "{message}");
    }
    modules.apply("image-wrong", image("artifact:v1", Some("image-right"))).await;
    modules.accepted("image-wrong", "1").await;
    modules.delete("image-wrong").await;
}
