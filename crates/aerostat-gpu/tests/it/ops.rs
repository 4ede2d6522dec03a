//! Each op by itself.

use aerostat_backend::Backend;
use aerostat_backend::conformance::{self, Tolerance};
use aerostat_backend::reference::Reference;
use aerostat_gpu::UploadPath;

use crate::{boxed, open, shaders};

fn reference() -> Box<dyn Backend> {
    Box::new(Reference::new())
}

#[test]
fn every_op_agrees_with_the_reference() {
    for path in [UploadPath::Mapped, UploadPath::Staged] {
        let device = open(None, path);
        conformance::run(&|| boxed(path), &reference, Tolerance::Documented);
        shaders::assert_listed(&device);
    }
}
