//! Plain data that a model's description, a plan and a device share, so that each exists once.
//!
//! What a value means is said here; what is computed of it, bit for bit, is said in `aerostat-backend`.

#![forbid(unsafe_code)]

use aerostat_checkpoint::DType;

/// A non-linearity, applied to each element `x` by itself; mostly that of an MLP.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// `1 / (1 + e^-x)`.
    Sigmoid,
    /// `x * sigmoid(x)`.
    Silu,
    /// The tanh approximation of GELU.
    GeluTanh,
    /// GELU with the error function.
    GeluErf,
    /// `max(x, 0)`.
    Relu,
    /// `max(x, 0)` squared.
    ReluSquared,
    /// `x` between 0 and 6.
    Relu6,
    /// `x * sigmoid(1.702 * x)`, an early approximation of GELU.
    QuickGelu,
    /// `x * tanh(ln(1 + e^x))`.
    Mish,
    /// The hyperbolic tangent.
    Tanh,
    /// `e^x`.
    Exp,
    /// `ln(1 + e^x)`.
    Softplus,
    /// `x * sigmoid(alpha * x)` of `x` up to `limit`. Where it gates an MLP, what it gates is clipped to
    /// `-limit ..= limit` and 1 is added.
    ClippedSilu {
        /// Factor on `x` in the sigmoid.
        alpha: f32,
        /// The largest gate, and the largest size of what is gated.
        limit: f32,
    },
}

/// Which two elements of a head form a pair, which rotary position embedding turns by one angle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopeStyle {
    /// Element `i` with element `i + rotary / 2` (Hugging Face's `rotate_half`).
    Half,
    /// Element `2 i` with element `2 i + 1` (GGUF's "llama" order).
    Interleaved,
}

/// Attention with linear biases (ALiBi): scores fall off with distance, each head by its own slope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alibi {
    /// Sets how steep the slopes are: those of `2^n` heads are the powers of `2^(-most / 2^n)`, from the first on.
    pub most: u32,
    /// Slopes, positions and their products are rounded to BF16, and what is added is scaled as scores are.
    pub rounded: bool,
}

/// The positions that a row at position `p` attends to, where these are not all up to `p`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// The last `n` positions, its own included: `p + 1 - n ..= p`.
    Last(usize),
    /// Its own chunk of `n` positions, up to itself: `p - p % n ..= p`.
    Chunk(usize),
    /// Up to `n` positions on both sides: `p - n ..= p + n`, as far as the row may look ahead.
    Around(usize),
}

/// Where a tile of weights is between sweeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Home {
    /// In the files of the model: it is read in every sweep that uses it.
    #[default]
    Disk,
    /// In memory of the host. Where the device is the host, this is also its own.
    Host,
    /// In memory of the device, where that is not the host's.
    Device,
}

/// What a device with memory of its own takes of it, for a plan to spend what is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceMemory {
    /// The most that may be allocated there.
    pub budget_bytes: u64,
    /// What is taken whatever is computed: memory to write and read through, scratch, what allocators round up.
    pub fixed_bytes: u64,
    /// Tiles that pass through at a time.
    pub slots: u64,
    /// It is memory of the host, too: what is there counts as the host's.
    pub shares_host: bool,
}

/// How the KV cache stores one kind of rows, keys or values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KvElement {
    /// IEEE half precision, rounded to nearest even.
    F16,
    /// bfloat16, rounded to nearest even.
    BF16,
    /// Exact.
    F32,
    /// Whole numbers up to 127 times an f16 that each run of 32 elements has of its own, laid out as [`DType::Q8_0`]:
    /// half of F16, and lossy. A row that ends within a run fills it with zeros.
    Q8,
}

/// How the KV cache stores keys and values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum KvType {
    /// Both in IEEE half precision.
    #[default]
    F16,
    /// Both in bfloat16.
    BF16,
    /// Both exact.
    F32,
    /// Keys in half precision, values in 8 bits: three quarters of F16, and lossy. What is key and value at once, as latents
    /// are, is a key.
    Q8,
    /// Both in 8 bits: half of F16. Some models' keys do not bear it.
    Q8All,
}

impl KvType {
    /// All of them.
    pub const ALL: &[Self] = &[Self::F16, Self::BF16, Self::F32, Self::Q8, Self::Q8All];

    /// Its name, as users write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::BF16 => "bf16",
            Self::F32 => "f32",
            Self::Q8 => "q8",
            Self::Q8All => "q8-all",
        }
    }

    /// How keys are stored.
    pub const fn keys(self) -> KvElement {
        match self {
            Self::F16 | Self::Q8 => KvElement::F16,
            Self::BF16 => KvElement::BF16,
            Self::F32 => KvElement::F32,
            Self::Q8All => KvElement::Q8,
        }
    }

    /// How values are stored.
    pub const fn values(self) -> KvElement {
        match self {
            Self::Q8 => KvElement::Q8,
            other => other.keys(),
        }
    }
}

impl KvElement {
    /// Bytes of the key or the value of one head at one position, of so many elements.
    pub const fn row_bytes(self, elements: usize) -> usize {
        match self {
            Self::F16 | Self::BF16 => elements.saturating_mul(2),
            Self::F32 => elements.saturating_mul(4),
            Self::Q8 => elements.div_ceil(DType::Q8_0.block_len()).saturating_mul(DType::Q8_0.block_bytes()),
        }
    }
}
