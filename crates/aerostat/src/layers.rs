//! Small layers behind pooling, computed on the host for one vector at a time: those of a folder of sentence-transformers, and
//! the heads of models that score texts.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use aerostat_backend::{Activation, formats, numerics};
use aerostat_checkpoint::{Catalog, Checkpoint};
use serde_json::Value;

use crate::embedding::{activated, broken, settings};
use crate::{Error, ErrorKind};

/// Elements of a matrix that are read.
const ELEMENTS_MAX: u64 = 1 << 28;
/// Widest vector.
const WIDTH_MAX: usize = 1 << 20;

/// What is done to each element in the end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Activated {
    No,
    Tanh,
    By(Activation),
}

impl Activated {
    /// Of one element.
    pub(crate) fn of(self, value: f32) -> f32 {
        match self {
            Self::No => value,
            Self::Tanh => numerics::tanh(value),
            Self::By(activation) => numerics::activate(value, activation),
        }
    }
}

/// A layer.
#[derive(Debug)]
enum Step {
    /// `activation(W x + b)`.
    Dense { weights: Vec<f32>, bias: Option<Vec<f32>>, activated: Activated },
    /// Mean and deviation, weights and bias.
    LayerNorm { weights: Vec<f32>, bias: Option<Vec<f32>>, eps: f32 },
    /// A length of 1.
    Norm,
}

/// Layers, one after the other.
#[derive(Clone, Debug, Default)]
pub(crate) struct Layers(Vec<Arc<Step>>);

impl Layers {
    /// What they take in memory.
    pub(crate) fn bytes(&self) -> u64 {
        let len = |bias: &Option<Vec<f32>>| bias.as_ref().map_or(0, Vec::len);
        let elements = |step: &Arc<Step>| match &**step {
            Step::Dense { weights, bias, .. } | Step::LayerNorm { weights, bias, .. } => weights.len() + len(bias),
            Step::Norm => 0,
        };
        self.0.iter().map(elements).sum::<usize>() as u64 * size_of::<f32>() as u64
    }

    /// What they make of a vector: sums in canonical order.
    pub(crate) fn apply(&self, mut vector: Vec<f32>) -> Vec<f32> {
        for step in &self.0 {
            vector = step.apply(vector);
        }
        vector
    }

    pub(crate) fn push_norm(&mut self) {
        self.0.push(Arc::new(Step::Norm));
    }

    /// The layer of a folder such as `2_Dense`, for vectors of so many elements; gives those of what it makes.
    pub(crate) fn push_dense(&mut self, folder: &Path, inputs: usize) -> Result<usize, Error> {
        let path = folder.join("config.json");
        let config = settings(&path)?.ok_or_else(|| broken(&path, "it is not there"))?;
        let name = config.get("activation_function").and_then(Value::as_str).unwrap_or("Tanh");
        let activated = activated(name)
            .ok_or_else(|| broken(&path, &format!("the activation `{name}` is not supported")))?;
        let stated = config.get("in_features").and_then(Value::as_u64);
        if stated.is_some_and(|stated| stated != inputs as u64) {
            return Err(broken(&path, &format!("`in_features` is not {inputs}, the elements of its vectors")));
        }
        let checkpoint = Checkpoint::open(folder)?;
        self.dense(&checkpoint.catalog, "linear", inputs, activated)
    }

    /// The layer of a folder such as `2_LayerNorm`.
    pub(crate) fn push_layer_norm(&mut self, folder: &Path, size: usize) -> Result<(), Error> {
        let checkpoint = Checkpoint::open(folder)?;
        self.layer_norm(&checkpoint.catalog, "norm", size, 1e-5)
    }

    /// A layer by the name of its tensors; gives the elements of what it makes.
    pub(crate) fn dense(
        &mut self,
        catalog: &Catalog,
        name: &str,
        inputs: usize,
        activated: Activated,
    ) -> Result<usize, Error> {
        let tensor = catalog.require(&format!("{name}.weight"))?;
        let outputs = match tensor.shape.as_slice() {
            [outputs, columns] if *columns == inputs as u64 => usize::try_from(*outputs).unwrap_or(usize::MAX),
            shape => {
                let message = format!("`{}` is {shape:?}, not a matrix of {inputs} columns", tensor.name);
                return Err(broken(catalog.file_of(tensor), &message));
            }
        };
        if outputs == 0 || outputs > WIDTH_MAX {
            return Err(broken(catalog.file_of(tensor), &format!("`{}` has {outputs} rows", tensor.name)));
        }
        let weights = values(catalog, &format!("{name}.weight"), inputs * outputs)?;
        let bias = bias(catalog, name, outputs)?;
        self.0.push(Arc::new(Step::Dense { weights, bias, activated }));
        Ok(outputs)
    }

    /// A norm by the name of its tensors.
    pub(crate) fn layer_norm(
        &mut self,
        catalog: &Catalog,
        name: &str,
        size: usize,
        eps: f32,
    ) -> Result<(), Error> {
        let weights = values(catalog, &format!("{name}.weight"), size)?;
        let bias = bias(catalog, name, size)?;
        self.0.push(Arc::new(Step::LayerNorm { weights, bias, eps }));
        Ok(())
    }
}

impl Step {
    fn apply(&self, mut vector: Vec<f32>) -> Vec<f32> {
        let add = |vector: &mut [f32], bias: &Option<Vec<f32>>| {
            vector.iter_mut().zip(bias.iter().flatten()).for_each(|(v, b)| *v += b);
        };
        match self {
            Self::Norm => scaled_to_one(&mut vector),
            Self::LayerNorm { weights, bias, eps } => {
                let plain = vector.clone();
                numerics::layer_norm(&plain, *eps, &mut vector);
                vector.iter_mut().zip(weights).for_each(|(v, w)| *v *= w);
                add(&mut vector, bias);
            }
            Self::Dense { weights, bias, activated } => {
                let rows = weights.chunks_exact(vector.len().max(1));
                let mut made: Vec<f32> = rows.map(|row| numerics::dot(row, &vector)).collect();
                add(&mut made, bias);
                made.iter_mut().for_each(|v| *v = activated.of(*v));
                vector = made;
            }
        }
        vector
    }
}

/// Scales a vector to a length of 1.
pub(crate) fn scaled_to_one(vector: &mut [f32]) {
    let length = vector.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt().max(1e-12);
    vector.iter_mut().for_each(|v| *v = (f64::from(*v) / length) as f32);
}

fn bias(catalog: &Catalog, name: &str, len: usize) -> Result<Option<Vec<f32>>, Error> {
    let name = format!("{name}.bias");
    catalog.get(&name).map(|_| values(catalog, &name, len)).transpose()
}

/// The elements of a tensor.
fn values(catalog: &Catalog, name: &str, len: usize) -> Result<Vec<f32>, Error> {
    let tensor = catalog.require(name)?;
    let path = catalog.file_of(tensor);
    let elements: u64 = tensor.shape.iter().product();
    if elements != len as u64 || elements > ELEMENTS_MAX {
        return Err(broken(path, &format!("`{name}` has {elements} elements, not {len}")));
    }
    let read = || -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(tensor.extent.offset))?;
        file.take(tensor.extent.bytes).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(|error| Error::new(ErrorKind::Io, format!("{}: {error}", path.display())))?;
    let mut values = vec![0.0; len];
    formats::expand(tensor.dtype, &bytes, &mut values)?;
    Ok(values)
}
