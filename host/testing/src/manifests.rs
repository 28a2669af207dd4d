//! For tests: releases that consist of their manifests. The files are real; the tests of the runtime cover
//! the compiler.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Barrier;
use wasm_encoder::{Component, CustomSection};

use switchboard_core::manifest::{self, Manifest};
use switchboard_recording::{Outcome, Recording};
use switchboard_runtime::{
    self as runtime, HasManifest, Inputs, Load, Observable, ObserverSlot, ReleaseFile, ReleaseStats,
};

/// Loads a manifest. A node refuses a manifest with the description `not on NAME`. With `meets on NAME`, the
/// node waits until another node does the same.
pub struct Manifests {
    pub of: &'static str,
    /// How often a release was loaded; a change of settings must not do that.
    pub loads: AtomicUsize,
}

impl Manifests {
    pub fn of(node: &'static str) -> Self {
        Self { of: node, loads: AtomicUsize::new(0) }
    }

    /// A node refuses live settings with the value `not on NAME`.
    fn check(&self, inputs: &Inputs) -> Result<(), runtime::Error> {
        let unfit = format!("not on {}", self.of);
        match inputs.live.values().any(|value| *value == unfit) {
            true => Err(runtime::Error::of_host("it does not fit here")),
            false => Ok(()),
        }
    }
}

/// A release that the test calls.
pub struct Declared {
    manifest: Manifest,
    stats: ReleaseStats,
    observer: ObserverSlot,
    inputs: Mutex<Inputs>,
}

impl Declared {
    pub fn called(name: &str) -> Arc<Self> {
        let manifest = Manifest::parse(&format!("name = \"{name}\"\n{SEND}")).expect("a manifest");
        Arc::new(Self::with(manifest, Inputs::default()))
    }

    fn with(manifest: Manifest, inputs: Inputs) -> Self {
        let (stats, observer) = (ReleaseStats::default(), ObserverSlot::default());
        Self { manifest, stats, observer, inputs: Mutex::new(inputs) }
    }

    /// The inputs that were applied last.
    pub fn inputs(&self) -> Inputs {
        self.inputs.lock().clone()
    }
}

impl HasManifest for Declared {
    fn manifest(&self) -> &Manifest {
        &self.manifest
    }
}

impl Observable for Declared {
    fn stats(&self) -> &ReleaseStats {
        &self.stats
    }

    fn observer(&self) -> &ObserverSlot {
        &self.observer
    }
}

impl Load for Manifests {
    type Release = Declared;

    async fn load(&self, file: &ReleaseFile, inputs: &Inputs) -> Result<Arc<Declared>, runtime::Error> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        if file.manifest.description == format!("not on {}", self.of) {
            return Err(runtime::Error::of_host("no room for it"));
        }
        if file.manifest.description == format!("meets on {}", self.of) {
            MEETING.wait().await;
        }
        self.check(inputs)?;
        Ok(Arc::new(Declared::with(file.manifest.clone(), inputs.clone())))
    }

    async fn apply(&self, release: &Arc<Declared>, inputs: Inputs) -> Result<(), runtime::Error> {
        self.check(&inputs)?;
        *release.inputs.lock() = inputs;
        Ok(())
    }

    async fn vet(&self, _release: &Arc<Declared>) -> Result<(), runtime::Error> {
        Ok(())
    }

    /// Answers like the live call, or with its description if that is `differs`.
    async fn replay(
        &self,
        release: &Arc<Declared>,
        recording: &Recording,
    ) -> Result<Recording, runtime::Error> {
        let mut again = recording.clone();
        if release.manifest.description == "differs" {
            again.outcome = Outcome::Returned("differs".into());
        }
        Ok(again)
    }
}

/// For the test with two concurrent deploys: both have read the running release, and neither has switched.
static MEETING: LazyLock<Barrier> = LazyLock::new(|| Barrier::new(2));

/// A release file of a handler; the text makes its bytes, and so its digest, unique.
pub fn file(name: &str, on: &str, text: &str) -> Bytes {
    let manifest = format!("name = \"{name}\"\ndescription = \"{text}\"\n{on}");
    let mut component = Component::new();
    component.section(&CustomSection { name: manifest::SECTION.into(), data: manifest.as_bytes().into() });
    component.finish().into()
}

pub const SEND: &str = r#"on.frame = [{ type = "message.send" }]"#;
