//! Files from images and artifacts of container registries. (The registry of this project's glossary is another one: here
//! the word always stands with "container".)

pub mod credentials;
mod error;
mod layers;
pub mod pull;

pub use error::ImageError;

/// A file of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageFile {
    /// Its name, without the path.
    pub name: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// The files of an image under one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PulledImage {
    /// The digest of the manifest of the reference.
    pub digest: String,
    /// The files, by name.
    pub files: Vec<ImageFile>,
}
