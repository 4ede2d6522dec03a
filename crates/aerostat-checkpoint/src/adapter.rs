//! Adapters as PEFT saves them: a folder with `adapter_config.json` and `adapter_model.safetensors`.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::limits::CONFIG_BYTES_MAX;
use crate::{Catalog, Error, ErrorKind, disk, safetensors};

/// The file that makes a folder an adapter.
pub const ADAPTER_CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";

/// An adapter on disk: what it is and where its tensors lie.
#[derive(Debug)]
pub struct Adapter {
    /// The adapter's folder.
    pub path: PathBuf,
    /// The content of `adapter_config.json`.
    pub config: serde_json::Map<String, Value>,
    /// The adapter's tensors, by the names that PEFT gives them.
    pub catalog: Catalog,
}

impl Adapter {
    /// Reads the configuration and the headers of an adapter's folder.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if one of the two files is missing, [`ErrorKind::Config`] for malformed JSON, and the kinds
    /// that concern headers.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        for name in [ADAPTER_CONFIG, WEIGHTS] {
            if !folder.join(name).is_file() {
                let message = format!(
                    "there is no {name}; an adapter is a folder with {ADAPTER_CONFIG} and {WEIGHTS}, as PEFT's \
                     save_pretrained makes it"
                );
                return Err(Error::new(ErrorKind::NotFound, folder, message));
            }
        }
        let at = folder.join(ADAPTER_CONFIG);
        let bytes = disk::read(&at, CONFIG_BYTES_MAX)?;
        let config: Value = serde_json::from_slice(&bytes)
            .map_err(|error| Error::new(ErrorKind::Config, &at, format!("this is not JSON: {error}")))?;
        let Value::Object(config) = config else {
            return Err(Error::new(ErrorKind::Config, &at, "this is not a JSON object"));
        };
        Ok(Self { path: folder.to_owned(), config, catalog: safetensors::open(&folder.join(WEIGHTS))? })
    }
}
