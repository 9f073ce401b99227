//! Reads a module's source: ConfigMaps from the watch's store, a directory from the file system, an image that was pulled.

use std::{fs, io, path::Path};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::reflector::{ObjectRef, Store};

use crate::{
    api::tenant_module::{
        ConfigMapReference, ModuleExtension, ModuleSource, ModuleSourceKind, TenantModuleSpec,
    },
    domain::{accepted_module::AcceptedModule, module_refusal::ModuleRefusal},
    images::{ImageFile, PulledImage},
    modules::{
        Extension, Module, ModuleKind,
        acceptance::named_versions,
        files::{SourceFile, migrations},
    },
};

/// A module as its source has it.
#[derive(Clone, Debug)]
pub struct SourceModule {
    /// The module, up to the version that tenants are brought to.
    pub module: Module,
    /// The newest file in the source.
    pub newest: i32,
}

/// Which kind of source it is.
pub fn kind(source: &ModuleSource) -> Option<ModuleSourceKind> {
    let kinds = [
        (source.config_maps.is_some(), ModuleSourceKind::ConfigMaps),
        (source.directory.is_some(), ModuleSourceKind::Directory),
        (source.image.is_some(), ModuleSourceKind::Image),
        (source.job.is_some(), ModuleSourceKind::Job),
        (source.external.is_some(), ModuleSourceKind::External),
        (source.built_in.is_some(), ModuleSourceKind::BuiltIn),
    ];
    kinds.into_iter().find_map(|(is_it, kind)| is_it.then_some(kind))
}

/// What was read of a source.
#[derive(Debug)]
pub struct ReadSource {
    /// The module; or what is wrong with the source, and the newest file in it, if its files could be read.
    pub newest: Result<SourceModule, (ModuleRefusal, Option<i32>)>,
    /// The content that was accepted before, if the source still has it.
    pub accepted: Option<Module>,
}

impl ReadSource {
    /// A source without content.
    pub fn refused(refusal: ModuleRefusal) -> Self {
        Self { newest: Err((refusal, None)), accepted: None }
    }
}

/// Reads a module's source. `image` is that of `source.image`.
pub async fn read(
    name: &str,
    spec: &TenantModuleSpec,
    image: Option<&PulledImage>,
    config_maps: &Store<ConfigMap>,
    namespace: &str,
    accepted: Option<&AcceptedModule>,
) -> ReadSource {
    let kind = kind_of(spec);
    let described = |versions| described(Module { kind, ..Module::new(name.to_owned(), versions) }, spec);
    if kind != ModuleKind::Files {
        let wanted = spec.version.as_deref().unwrap_or_default();
        return match named_versions(wanted, accepted) {
            Ok(versions) => {
                let module = described(versions);
                ReadSource { newest: Ok(SourceModule { newest: module.target(), module }), accepted: None }
            }
            Err(refusal) => ReadSource::refused(refusal),
        };
    }
    let (origin, files) = match files_of(spec, image, config_maps, namespace).await {
        Ok(found) => found,
        Err(refusal) => return ReadSource::refused(refusal),
    };
    let at_target = |migrations| {
        let module = described(migrations);
        let newest = module.target();
        let module = module.at_target(spec.version.as_deref()).map_err(|refusal| (refusal, Some(newest)))?;
        Ok(SourceModule { module, newest })
    };
    let accepted = accepted.and_then(|accepted| described(Vec::new()).as_accepted(&files, accepted));
    let newest = migrations(&origin, &files).map_err(|refusal| (refusal, None)).and_then(at_target);
    ReadSource { newest, accepted }
}

/// The files of a source, and where they are.
async fn files_of(
    spec: &TenantModuleSpec,
    image: Option<&PulledImage>,
    config_maps: &Store<ConfigMap>,
    namespace: &str,
) -> Result<(String, Vec<SourceFile>), ModuleRefusal> {
    Ok(match (&spec.source.config_maps, &spec.source.directory, image) {
        (Some(references), ..) => {
            let files = read_config_maps(references, config_maps, namespace)?;
            ("spec.source.configMaps".to_owned(), files)
        }
        (None, Some(path), _) => (format!("directory {path:?}"), read_directory(path.clone()).await?),
        (None, None, Some(image)) => read_image(spec, image),
        (None, None, None) => ("spec.source".to_owned(), Vec::new()),
    })
}

/// How the versions of a module come into a database.
pub fn kind_of(spec: &TenantModuleSpec) -> ModuleKind {
    match (&spec.source.job, &spec.source.external) {
        (Some(_), _) => ModuleKind::Job,
        (None, Some(_)) => ModuleKind::External,
        (None, None) => ModuleKind::Files,
    }
}

/// A module with what its spec says beside the source.
fn described(mut module: Module, spec: &TenantModuleSpec) -> Module {
    if let Some(schema) = &spec.schema {
        module.schema = schema.clone().into();
    }
    module.depends_on.clone_from(&spec.depends_on);
    module.extensions = spec.extensions.iter().map(extension).collect();
    module
}

fn extension(extension: &ModuleExtension) -> Extension {
    let ModuleExtension { name, version, schema } = extension.clone();
    Extension { name, version, schema }
}

fn read_config_maps(
    references: &[ConfigMapReference],
    config_maps: &Store<ConfigMap>,
    namespace: &str,
) -> Result<Vec<SourceFile>, ModuleRefusal> {
    let mut files = Vec::new();
    for ConfigMapReference { name } in references {
        let not_found =
            || ModuleRefusal::ConfigMapNotFound { name: name.clone(), namespace: namespace.to_owned() };
        let map = config_maps.get(&ObjectRef::new(name).within(namespace)).ok_or_else(not_found)?;
        let text = map.data.iter().flatten().map(|(key, value)| (key, value.as_bytes()));
        let binary = map.binary_data.iter().flatten().map(|(key, value)| (key, value.0.as_slice()));
        files.extend(text.chain(binary).map(|(key, bytes)| SourceFile {
            origin: format!("ConfigMap {name:?}"),
            name: key.clone(),
            bytes: bytes.to_vec(),
        }));
    }
    Ok(files)
}

fn read_image(spec: &TenantModuleSpec, image: &PulledImage) -> (String, Vec<SourceFile>) {
    let source = spec.source.image.clone().unwrap_or_default();
    let origin = format!("image {:?}, path {:?}", source.reference, source.path.as_deref().unwrap_or("/"));
    let file = |file: &ImageFile| SourceFile {
        origin: origin.clone(),
        name: file.name.clone(),
        bytes: file.bytes.clone(),
    };
    let files = image.files.iter().map(file).collect();
    (origin, files)
}

async fn read_directory(path: String) -> Result<Vec<SourceFile>, ModuleRefusal> {
    let unreadable = |why: String| ModuleRefusal::DirectoryUnreadable { path: path.clone(), why };
    let reading = path.clone();
    let read = tokio::task::spawn_blocking(move || files_in(Path::new(&reading))).await;
    match read {
        Ok(files) => files.map_err(|error| unreadable(error.to_string())),
        Err(error) => Err(unreadable(error.to_string())),
    }
}

/// The files of a directory, apart from hidden ones: a volume has some beside its files.
fn files_in(path: &Path) -> io::Result<Vec<SourceFile>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') {
            let bytes = fs::read(entry.path())?;
            files.push(SourceFile { origin: format!("directory {:?}", path.display()), name, bytes });
        }
    }
    Ok(files)
}
