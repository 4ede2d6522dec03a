//! The kernels: their WGSL, put together from files for each op, format and shape, and compiled when they are first used.

use std::collections::HashMap;
use std::sync::Arc;

use aerostat_backend::quantised::{Code, Table};
use aerostat_backend::{Error, ErrorKind, KvElement};
use aerostat_checkpoint::DType;

use crate::context::Context;

/// Bytes of parameters that every device takes.
const IMMEDIATE_BYTES: u32 = 128;

/// A kernel, with what its code depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kernel {
    /// Element by element.
    Map,
    /// Norms of groups of columns.
    Norm,
    /// Rotation of heads.
    Rope,
    /// Rows, columns and heads, to where they belong.
    Copy,
    /// Products with a tile of weights.
    Matmul {
        /// How weights are stored.
        weights: Weights,
        /// Rows that a workgroup computes.
        rows: u32,
    },
    /// Products with a tile of a matrix that is stored by inputs.
    KMajor(Weights),
    /// Norms of a tile's rows.
    RowNorms(DType),
    /// Rows of a tile, expanded.
    WeightRows(DType),
    /// Scales that are codes.
    Nested,
    /// Keys or values, to the cache.
    KvWrite,
    /// Rows of the cache, to other slots.
    KvCopy,
    /// Attention over what is in the cache.
    Attention(AttentionShape),
    /// A convolution with the last positions of a sequence.
    ShortConv,
    /// The gated delta rule.
    DeltaRule,
    /// The selective scan of a state space.
    StateScan,
    /// How good positions are to attend to.
    IndexScore {
        /// How the cache stores their keys.
        key: KvElement,
        /// Elements of a key.
        dim: u32,
    },
    /// The best of those.
    Select,
    /// Multiply-adds, to measure them.
    PeakFma,
    /// Reads of memory, to measure them.
    PeakRead,
}

/// How weights are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Weights {
    /// In a format that says all.
    Plain(DType),
    /// In codes, with scales that lie apart.
    Codes(Code),
}

/// What the code of an attention depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AttentionShape {
    /// How keys are stored.
    pub key: KvElement,
    /// How values are stored.
    pub value: KvElement,
    /// Elements of a key.
    pub key_dim: u32,
    /// Elements of a value.
    pub value_dim: u32,
    /// Values are the first elements of keys.
    pub values_in_keys: bool,
    /// Only chosen positions are seen.
    pub selected: bool,
}

/// A compiled kernel.
pub(crate) struct Pipeline {
    pub(crate) raw: wgpu::ComputePipeline,
    pub(crate) layout: wgpu::BindGroupLayout,
    pub(crate) layout_number: usize,
}

/// Compiled kernels.
#[derive(Default)]
pub(crate) struct Pipelines {
    compiled: HashMap<Kernel, Arc<Pipeline>>,
    /// By which buffers are only read.
    layouts: Vec<(&'static [bool], wgpu::BindGroupLayout, wgpu::PipelineLayout)>,
}

/// The parameters of a kernel.
#[derive(Default)]
pub(crate) struct Words {
    words: [u32; IMMEDIATE_BYTES as usize / 4],
    len: usize,
    overflow: bool,
}

impl Words {
    /// Whole numbers below 2^32, in the order of the kernel's parameters.
    pub(crate) fn of(values: &[usize]) -> Result<Self, Error> {
        Self::default().and(values)
    }

    /// The same after what there is.
    pub(crate) fn and(mut self, values: &[usize]) -> Result<Self, Error> {
        for value in values {
            let Ok(word) = u32::try_from(*value) else {
                return Err(Error::shape(format!("{value} does not fit a parameter of a kernel")));
            };
            self.push(word);
        }
        self.checked()
    }

    /// Adds words as they are.
    pub(crate) fn bits(mut self, values: &[u32]) -> Result<Self, Error> {
        values.iter().for_each(|value| self.push(*value));
        self.checked()
    }

    pub(crate) fn floats(self, values: &[f32]) -> Result<Self, Error> {
        values.iter().try_fold(self, |words, value| words.bits(&[value.to_bits()]))
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.words[..self.len].iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    fn push(&mut self, word: u32) {
        match self.words.get_mut(self.len) {
            Some(place) => (*place, self.len) = (word, self.len + 1),
            None => self.overflow = true,
        }
    }

    fn checked(self) -> Result<Self, Error> {
        if self.overflow { Err(Error::shape("a kernel has too many parameters")) } else { Ok(self) }
    }
}

impl Pipelines {
    /// The kernels that were compiled.
    pub(crate) fn kernels(&self) -> Vec<Kernel> {
        self.compiled.keys().copied().collect()
    }

    /// The compiled kernel.
    pub(crate) fn get(&mut self, context: &Context, kernel: Kernel) -> Result<Arc<Pipeline>, Error> {
        if let Some(pipeline) = self.compiled.get(&kernel) {
            return Ok(Arc::clone(pipeline));
        }
        let pipeline = Arc::new(self.compile(context, kernel)?);
        self.compiled.insert(kernel, Arc::clone(&pipeline));
        Ok(pipeline)
    }

    fn compile(&mut self, context: &Context, kernel: Kernel) -> Result<Pipeline, Error> {
        let device = &context.device;
        let number = self.layout(context, kernel.read_only());
        let (_, layout, pipeline_layout) = &self.layouts[number];
        let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
        let internal = device.push_error_scope(wgpu::ErrorFilter::Internal);
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: None,
            source: wgpu::ShaderSource::Wgsl(kernel.source().into()),
        });
        let raw = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: None,
            layout: Some(pipeline_layout),
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions {
                zero_initialize_workgroup_memory: false,
                ..wgpu::PipelineCompilationOptions::default()
            },
            cache: None,
        });
        let failed = [internal.pop(), scope.pop()].into_iter().filter_map(crate::adapters::now);
        // Of what wgpu does not expect of drivers it makes a device that is lost.
        let failed = failed.flatten().next().map(|error| error.to_string());
        if let Some(error) = failed.or_else(|| context.check().err().map(|error| error.to_string())) {
            let message = format!(
                "{} does not compile the kernel {kernel:?}; a newer driver may, and --device cpu needs none ({error})",
                context.name
            );
            return Err(Error::new(ErrorKind::Device, message));
        }
        Ok(Pipeline { raw, layout: layout.clone(), layout_number: number })
    }

    fn layout(&mut self, context: &Context, read_only: &'static [bool]) -> usize {
        if let Some(number) = self.layouts.iter().position(|(of, ..)| *of == read_only) {
            return number;
        }
        let entries: Vec<wgpu::BindGroupLayoutEntry> = (0..)
            .zip(read_only)
            .map(|(binding, &read_only)| wgpu::BindGroupLayoutEntry {
                binding,
                visibility: wgpu::ShaderStages::COMPUTE,
                ty: wgpu::BindingType::Buffer {
                    ty: wgpu::BufferBindingType::Storage { read_only },
                    has_dynamic_offset: false,
                    min_binding_size: None,
                },
                count: None,
            })
            .collect();
        let device = &context.device;
        let layout = device
            .create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: None, entries: &entries });
        let pipeline = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: None,
            bind_group_layouts: &[Some(&layout)],
            immediate_size: IMMEDIATE_BYTES,
        });
        self.layouts.push((read_only, layout, pipeline));
        self.layouts.len() - 1
    }
}

impl Kernel {
    /// For each of its buffers, whether it is only read.
    fn read_only(self) -> &'static [bool] {
        match self {
            Self::Map | Self::Norm => &[false; 3],
            Self::Rope => &[false; 2],
            Self::Copy => &[false, false, true],
            Self::Matmul { weights: Weights::Plain(_), .. } | Self::RowNorms(_) => &[false, false, true],
            Self::Matmul { weights: Weights::Codes(_), .. } => &[false, false, true, false, false, false],
            Self::KMajor(_) => &[false, false, true, false, false, false, false],
            Self::WeightRows(_) => &[false, false, true, true],
            Self::Nested => &[false, false, false, true],
            Self::KvWrite => &[true, false, false],
            Self::KvCopy => &[false, true],
            Self::Attention(_) => &[true, false, false, false, false, false, false, true],
            Self::ShortConv => &[true, false, false, false, false],
            Self::DeltaRule | Self::StateScan => &[true, false, false, false, false, false],
            Self::IndexScore { .. } => &[true, false, false, false, false],
            Self::Select => &[true, false, false],
            Self::PeakFma => &[false],
            Self::PeakRead => &[true, false],
        }
    }

    /// Its WGSL.
    pub fn source(self) -> String {
        const FUNCTIONS: &str = include_str!("wgsl/functions.wgsl");
        const PLACES: &str = include_str!("wgsl/places.wgsl");
        const CACHE: &str = include_str!("wgsl/cache.wgsl");
        const BYTES: &str = include_str!("wgsl/bytes.wgsl");
        const PRODUCT: &str = include_str!("wgsl/product.wgsl");
        match self {
            Self::Map => [FUNCTIONS, include_str!("wgsl/map.wgsl")].concat(),
            Self::Norm => include_str!("wgsl/norm.wgsl").to_owned(),
            Self::Rope => include_str!("wgsl/rope.wgsl").to_owned(),
            Self::Copy => include_str!("wgsl/copy.wgsl").to_owned(),
            Self::Matmul { weights, rows } => {
                let constants = format!("const ROWS: u32 = {rows}u;\nconst PER: u32 = {}u;\n", rows.min(8));
                let weights = weights.source(false);
                [&constants, PRODUCT, &weights, include_str!("wgsl/matmul.wgsl")].concat()
            }
            Self::KMajor(weights) => {
                [PRODUCT, &weights.source(true), include_str!("wgsl/k_major.wgsl")].concat()
            }
            Self::RowNorms(dtype) => {
                let weights = Weights::Plain(dtype).source(false);
                [PRODUCT, &weights, include_str!("wgsl/row_norms.wgsl")].concat()
            }
            Self::WeightRows(dtype) => {
                let weights = Weights::Plain(dtype).source(false);
                [PRODUCT, &weights, include_str!("wgsl/weight_rows.wgsl")].concat()
            }
            Self::Nested => [BYTES, include_str!("wgsl/nested.wgsl")].concat(),
            Self::KvWrite => [FUNCTIONS, CACHE, PLACES, include_str!("wgsl/kv_write.wgsl")].concat(),
            Self::KvCopy => [CACHE, include_str!("wgsl/kv_copy.wgsl")].concat(),
            Self::Attention(shape) => {
                [&shape.constants(), FUNCTIONS, CACHE, PLACES, include_str!("wgsl/attention.wgsl")].concat()
            }
            Self::ShortConv => [FUNCTIONS, include_str!("wgsl/short_conv.wgsl")].concat(),
            Self::DeltaRule => [FUNCTIONS, include_str!("wgsl/delta_rule.wgsl")].concat(),
            Self::StateScan => [FUNCTIONS, include_str!("wgsl/state_scan.wgsl")].concat(),
            Self::IndexScore { key, dim } => {
                let constants =
                    format!("const KEY_KIND: u32 = {}u;\nconst KEY_DIM: u32 = {dim}u;\n", kind(key));
                [&constants, FUNCTIONS, CACHE, PLACES, include_str!("wgsl/index_score.wgsl")].concat()
            }
            Self::Select => [PLACES, include_str!("wgsl/select.wgsl")].concat(),
            Self::PeakFma => include_str!("wgsl/peak_fma.wgsl").to_owned(),
            Self::PeakRead => include_str!("wgsl/peak_read.wgsl").to_owned(),
        }
    }
}

impl AttentionShape {
    fn constants(self) -> String {
        let Self { key, value, key_dim, value_dim, values_in_keys, selected } = self;
        format!(
            "const KEY_KIND: u32 = {}u;\nconst VALUE_KIND: u32 = {}u;\nconst KEY_DIM: u32 = {key_dim}u;\n\
             const VALUE_DIM: u32 = {value_dim}u;\nconst TOTALS: u32 = {}u;\n\
             const VALUES_IN_KEYS: bool = {values_in_keys};\nconst SELECTED: bool = {selected};\n",
            kind(key),
            kind(value),
            value_dim.div_ceil(64).max(1),
        )
    }
}

impl Weights {
    /// The functions that expand a weight.
    fn source(self, by_inputs: bool) -> String {
        const BYTES: &str = include_str!("wgsl/bytes.wgsl");
        let order = format!("const INPUTS_FIRST: bool = {by_inputs};\n");
        match self {
            Self::Plain(dtype) => {
                [&order, BYTES, element(dtype).unwrap_or_default(), include_str!("wgsl/plain.wgsl")].concat()
            }
            Self::Codes(code) => {
                let (number, bits, table) = match code {
                    Code::E4M3 => (0, 8, 0),
                    Code::E5M2 => (1, 8, 0),
                    Code::I8 => (2, 8, 0),
                    Code::Packed(bits) => (3, bits, 0),
                    Code::LowFirst(table) => (4, 4, table_number(table)),
                    Code::HighFirst(table) => (5, 4, table_number(table)),
                    Code::Columns(bits) => (6, bits, 0),
                    Code::Halves => (7, 4, 0),
                };
                let constants = format!(
                    "const CODE: u32 = {number}u;\nconst BITS: u32 = {bits}u;\nconst TABLE: u32 = {table}u;\n"
                );
                let functions = include_str!("wgsl/functions.wgsl");
                [&order, &constants, functions, BYTES, include_str!("wgsl/codes.wgsl")].concat()
            }
        }
    }
}

fn table_number(table: Table) -> u32 {
    match table {
        Table::E2M1 => 0,
        Table::Nf4 => 1,
        Table::Fp4 => 2,
    }
}

/// The number of a type of the cache's elements.
pub(crate) fn kind(element: KvElement) -> u32 {
    match element {
        KvElement::F16 => 0,
        KvElement::BF16 => 1,
        KvElement::F32 => 2,
        KvElement::Q8 => 3,
    }
}

/// The function that expands an element of a format; `None` where there is none.
fn element(dtype: DType) -> Option<&'static str> {
    Some(match dtype {
        DType::F32 => include_str!("wgsl/formats/f32.wgsl"),
        DType::F16 => include_str!("wgsl/formats/f16.wgsl"),
        DType::BF16 => include_str!("wgsl/formats/bf16.wgsl"),
        DType::Q8_0 => include_str!("wgsl/formats/q8_0.wgsl"),
        DType::Q4_0 => include_str!("wgsl/formats/q4_0.wgsl"),
        DType::Q4_1 => include_str!("wgsl/formats/q4_1.wgsl"),
        DType::Q5_0 => include_str!("wgsl/formats/q5_0.wgsl"),
        DType::Q5_1 => include_str!("wgsl/formats/q5_1.wgsl"),
        DType::Q2_K => include_str!("wgsl/formats/q2_k.wgsl"),
        DType::Q3_K => include_str!("wgsl/formats/q3_k.wgsl"),
        DType::Q4_K => include_str!("wgsl/formats/q4_k.wgsl"),
        DType::Q5_K => include_str!("wgsl/formats/q5_k.wgsl"),
        DType::Q6_K => include_str!("wgsl/formats/q6_k.wgsl"),
        DType::IQ4_NL => include_str!("wgsl/formats/iq4_nl.wgsl"),
        DType::IQ4_XS => include_str!("wgsl/formats/iq4_xs.wgsl"),
        DType::TQ1_0 => include_str!("wgsl/formats/tq1_0.wgsl"),
        DType::TQ2_0 => include_str!("wgsl/formats/tq2_0.wgsl"),
        DType::MXFP4 => include_str!("wgsl/formats/mxfp4.wgsl"),
        _ => return None,
    })
}
