//! Stored layouts that only a look at the tensors themselves can tell.

use aerostat_checkpoint::Catalog;
use aerostat_stream::Ring;

use crate::{Error, ErrorKind};

/// How bitsandbytes says that rows lie one after the other; its other layouts are those of one GPU or another.
const BY_ROWS: u8 = 0;

/// Refuses matrices of LLM.int8 that were saved in the layout of a GPU.
pub(crate) fn check_int8(catalog: &Catalog, ring: &mut Ring) -> Result<(), Error> {
    let formats = catalog.tensors().filter(|tensor| tensor.name.ends_with(".weight_format"));
    let formats: Vec<_> = formats.filter(|tensor| tensor.extent.bytes == 1).collect();
    let extents: Vec<_> = formats.iter().map(|tensor| tensor.extent).collect();
    let mut bytes = vec![BY_ROWS; extents.len()];
    ring.read_many_now(&extents, &mut bytes)?;
    match formats.iter().zip(bytes).find(|(_, format)| *format != BY_ROWS) {
        None => Ok(()),
        Some((tensor, format)) => {
            let message = format!(
                "tensor `{}` is {format}: 8-bit weights in the layout of a GPU are not supported; save the model again \
                 with a current bitsandbytes",
                tensor.name
            );
            Err(Error::new(ErrorKind::Model, message))
        }
    }
}
