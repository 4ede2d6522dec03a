//! What encoders add to the options of a block.

/// What the models of a family add that compute vectors of texts, not texts: their positions see all others of the text, and
/// they have no head.
#[derive(Clone, Copy, Debug)]
pub struct Encoder {
    /// Name of the learned vectors of the parts of a text, `[parts, hidden]`; empty, or no such tensor: there are none.
    pub types: &'static str,
    /// Whether learned positions begin behind that of the padding token, `pad_token_id`.
    pub positions_after_padding: bool,
    /// Name of the biases of scores by distance, `[buckets, heads]`; empty: there are none.
    pub distances: &'static str,
    /// Whether the MLP's output has a bias, whatever its other matrices have.
    pub down_bias: bool,
    /// Whether in one tensor of gate and up, up comes first.
    pub up_first: bool,
    /// Whether the first block reads the embeddings without a norm: they are normalised as they are.
    pub bare_first: bool,
}

impl Encoder {
    /// One without any of that.
    pub const PLAIN: Self = Self {
        types: "",
        positions_after_padding: false,
        distances: "",
        down_bias: false,
        up_first: false,
        bare_first: false,
    };
}
