//! The files of the images that modules name. They stay in memory while their module names the image: nothing is pulled
//! twice.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use crate::{api::module_image::ModuleImage, domain::module_refusal::ModuleRefusal, images::PulledImage};

/// The images, by the module's name.
#[derive(Default)]
pub struct Images {
    known: Mutex<BTreeMap<String, KnownImage>>,
    /// Notified when a module may name another image.
    pub wanted: Notify,
}

struct KnownImage {
    source: ModuleImage,
    state: ImageState,
    failures: u32,
    retry_at: Option<Instant>,
}

/// What is known of an image.
#[derive(Clone, Debug)]
pub enum ImageState {
    /// It is being pulled for the first time.
    Pulling,
    /// Its files.
    Pulled(Arc<PulledImage>),
    /// It could not be pulled, and is tried again.
    Failed(ModuleRefusal),
}

impl Images {
    /// The image that a module names.
    pub fn state(&self, module: &str, source: &ModuleImage) -> ImageState {
        let known = self.lock();
        let image = known.get(module).filter(|image| image.source == *source);
        image.map_or(ImageState::Pulling, |image| image.state.clone())
    }

    /// Forgets the images of modules that are not named here.
    pub fn keep(&self, is_named: impl Fn(&str) -> bool) {
        self.lock().retain(|module, _| is_named(module));
    }

    /// Whether the pull of an image begins now; if so, it counts as begun.
    pub fn begin(&self, module: &str, source: &ModuleImage, now: Instant) -> bool {
        let mut known = self.lock();
        match known.get_mut(module).filter(|image| image.source == *source) {
            Some(image) => match image.retry_at {
                Some(at) if at <= now => {
                    image.retry_at = None;
                    true
                }
                _ => false,
            },
            None => {
                let image = KnownImage {
                    source: source.clone(),
                    state: ImageState::Pulling,
                    failures: 0,
                    retry_at: None,
                };
                known.insert(module.to_owned(), image);
                true
            }
        }
    }

    /// A pull ended; `wait` says how long after so many failures the next one begins.
    pub fn end(
        &self,
        module: &str,
        source: &ModuleImage,
        result: Result<PulledImage, ModuleRefusal>,
        now: Instant,
        wait: impl Fn(u32) -> Duration,
    ) {
        let mut known = self.lock();
        // Meanwhile the module may name another one.
        let Some(image) = known.get_mut(module).filter(|image| image.source == *source) else { return };
        match result {
            Ok(pulled) => image.state = ImageState::Pulled(Arc::new(pulled)),
            Err(refusal) => {
                image.failures += 1;
                image.retry_at = Some(now + wait(image.failures));
                image.state = ImageState::Failed(refusal);
            }
        }
    }

    /// When the next failed pull is tried again.
    pub fn next_retry(&self) -> Option<Instant> {
        self.lock().values().filter_map(|image| image.retry_at).min()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, KnownImage>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(reference: &str) -> ModuleImage {
        ModuleImage { reference: reference.into(), ..ModuleImage::default() }
    }

    fn pulled() -> PulledImage {
        PulledImage { digest: "sha256:1".into(), files: Vec::new() }
    }

    #[test]
    fn image_is_pulled_once_and_failures_are_tried_again() {
        let (images, now) = (Images::default(), Instant::now());
        let (first, second) = (source("a:1"), source("a:2"));
        let wait = |failures: u32| Duration::from_secs(u64::from(failures) * 10);
        assert!(images.begin("m", &first, now) && !images.begin("m", &first, now));
        let refusal = ModuleRefusal::InvalidName("x".into());
        images.end("m", &first, Err(refusal.clone()), now, wait);
        assert!(matches!(images.state("m", &first), ImageState::Failed(found) if found == refusal));
        assert_eq!(images.next_retry(), Some(now + wait(1)));
        assert!(!images.begin("m", &first, now) && images.begin("m", &first, now + wait(1)));
        assert!(!images.begin("m", &first, now + wait(9)), "one at a time");
        images.end("m", &first, Err(refusal), now, wait);
        assert!(images.begin("m", &first, now + wait(2)));
        images.end("m", &first, Ok(pulled()), now, wait);
        assert!(matches!(images.state("m", &first), ImageState::Pulled(_)));
        assert!(!images.begin("m", &first, now + wait(9)) && images.next_retry().is_none());
        // Another reference is another image; what its predecessor's pull returns late is not its own.
        assert!(images.begin("m", &second, now));
        images.end("m", &first, Ok(pulled()), now, wait);
        assert!(matches!(images.state("m", &second), ImageState::Pulling));
        images.keep(|module| module != "m");
        assert!(images.begin("m", &second, now));
    }
}
