//! From a model's description to its program: what surrounds blocks, and what all blocks share.

use aerostat_arch::{Block, Growth, Linear, Mixer, ModelSpec, Norm, NormKind, Role, Vector};
use aerostat_backend::{Error, ErrorKind, defect};

use super::memory::{self, Lifetimes};
use super::{Buffer, Content, Height, Kept, Op, Product, Program, Slice, Source};

impl Program {
    /// Compiles a model.
    ///
    /// # Errors
    /// `Defect` where the description lacks what it needs; `Unsupported` where an adapter changes a matrix that is not
    /// multiplied as a whole.
    pub fn compile(spec: &ModelSpec) -> Result<Self, Error> {
        let mut c = Compiler::new(spec);
        c.enter()?;
        for (layer, block) in spec.blocks.iter().enumerate() {
            c.block(layer, block)?;
        }
        c.finish()
    }
}

/// Names of the angles of each rope; models have one or two.
const ANGLES: [&str; 4] = ["angles", "angles_2", "angles_3", "angles_4"];

/// A program in the making.
pub(super) struct Compiler<'a> {
    pub(super) spec: &'a ModelSpec,
    buffers: Vec<Buffer>,
    kept: Vec<Kept>,
    lifetimes: Lifetimes,
    /// The ops that are being emitted.
    ops: Vec<Op>,
    experts: Vec<Vec<Op>>,
    blocks: Vec<std::ops::Range<usize>>,
    /// The residual stream, `[rows, hidden]`.
    pub(super) x: Slice,
    /// Further inputs of all blocks, one block's after the other's.
    pub(super) layer_inputs: Option<Slice>,
    /// All residual streams, one after the other, where there are several; `x` is then what a block makes of one of them.
    pub(super) streams: Option<Slice>,
    /// Matrices that the adapter changed.
    updated: usize,
    /// Cosines and sines of each rope.
    angles: Vec<Slice>,
    growths: Vec<(Growth, Slice)>,
    /// Biases of scores by distance, with the tensors they are made of.
    pub(super) biases: Vec<(String, Slice)>,
    /// The positions that the last layer with an indexer chose.
    pub(super) selected: Option<Slice>,
    /// The head's input, `[rows, head width]`, where a matrix makes it of the residual stream.
    projected: Option<Slice>,
}

impl<'a> Compiler<'a> {
    fn new(spec: &'a ModelSpec) -> Self {
        let none = Slice { buffer: 0, first: 0, cols: 0 };
        let mut compiler = Self {
            spec,
            buffers: Vec::new(),
            kept: Vec::new(),
            lifetimes: Lifetimes::default(),
            ops: Vec::new(),
            experts: Vec::new(),
            blocks: Vec::new(),
            x: none,
            layer_inputs: None,
            streams: None,
            updated: 0,
            angles: Vec::new(),
            growths: Vec::new(),
            biases: Vec::new(),
            selected: None,
            projected: None,
        };
        compiler.x = compiler.rows("x", spec.hidden);
        compiler
    }

    /// From tokens to the residual stream before the first block.
    fn enter(&mut self) -> Result<(), Error> {
        for (rope, spec) in self.spec.ropes.iter().enumerate() {
            let name = ANGLES.get(rope).copied().unwrap_or("angles_further");
            let out = self.rows(name, spec.rotated());
            self.angles.push(out);
            self.emit(Op::Angles { rope, out });
        }
        for growth in self.spec.blocks.iter().filter_map(|block| block.attention()?.growth) {
            if !self.growths.iter().any(|(known, _)| *known == growth) {
                let out = self.rows("growth", 1);
                self.growths.push((growth, out));
                self.emit(Op::Growth { growth, out });
            }
        }
        let project_in = self.spec.blocks.first().and_then(|block| block.project_in.as_ref());
        let embedded = match project_in {
            Some(_) => self.rows("embedded", self.spec.embedding.cols),
            None => self.x,
        };
        self.emit(Op::Embed { table: 0, out: embedded });
        if let Some(factor) = self.spec.embedding_scale {
            self.emit(Op::Scale { x: embedded, factor });
        }
        if let Some(linear) = project_in {
            self.product_into((0, Role::ProjectIn), linear, embedded, self.x);
        }
        self.further_inputs()?;
        self.enter_streams()?;
        if let Some(positions) = &self.spec.positions {
            let source = Source::Tensor(positions.table.clone());
            let table = self.constant("positions", (positions.rows, self.spec.hidden), source);
            let out = self.rows("position", self.spec.hidden);
            self.emit(Op::GatherPositions { table, offset: positions.offset as u32, out });
            self.emit(Op::Add { x: self.x, y: out });
        }
        if let Some(types) = &self.spec.token_types {
            let source = Source::Tensor(types.table.clone());
            let table = self.constant("types", (types.rows, self.spec.hidden), source);
            let out = self.rows("type", self.spec.hidden);
            self.emit(Op::GatherTypes { table, out });
            self.emit(Op::Add { x: self.x, y: out });
        }
        if let Some(norm) = &self.spec.embedding_norm {
            self.norm("embedding_norm", norm, norm.size, self.x, self.x)?;
        }
        self.emit(Op::Tap { blocks: 0, x: self.x });
        Ok(())
    }

    fn block(&mut self, layer: usize, block: &Block) -> Result<(), Error> {
        let start = self.ops.len();
        self.experts.push(Vec::new());
        let x = self.x;
        let predicted = self.predict(block)?;
        let input = self.normed(block, "attention_norm", &block.attention_norm)?.unwrap_or(x);
        let shortcut = self.shortcut(layer, &block.shortcut, input)?;
        let mixed = self.mix(layer, &block.mixer, input)?;
        // The MLP of a parallel block reads the stream before attention is added to it.
        let before = match block.parallel {
            true => Some(self.normed(block, "mlp_norm", &block.mlp_norm)?),
            false => None,
        };
        if let Some(mixed) = mixed {
            self.weigh(block.stream_scales.map(|[mixer, _]| mixer), mixed);
            self.add(mixed, ("attention_post_norm", &block.attention_post_norm), block.residual_scale)?;
        }
        if let Some(shortcut) = shortcut {
            self.close_shortcut(shortcut);
        }
        let mlp_input = match before {
            Some(normed) => normed.unwrap_or(if block.mlp_norm.is_some() { x } else { input }),
            None => self.normed(block, "mlp_norm", &block.mlp_norm)?.unwrap_or(x),
        };
        if let Some(y) = self.feed_forward(layer, block, mlp_input)? {
            self.weigh(block.stream_scales.map(|[_, mlp]| mlp), y);
            self.add(y, ("mlp_post_norm", &block.mlp_post_norm), block.residual_scale)?;
        }
        match (predicted, &block.layer_input) {
            (Some(predicted), _) => self.correct(layer, block, predicted)?,
            (None, Some(further)) => {
                let y = self.further_input(layer, further)?;
                self.emit(Op::Add { x, y });
            }
            (None, None) => {}
        }
        if let Some(norm) = &block.end_norm {
            self.norm("end_norm", norm, norm.size, x, x)?;
        }
        if let Some(scale) = &block.scale {
            let factors = self.constant("scale", (1, x.cols), Source::Tensor(scale.clone()));
            self.emit(Op::MulColumns { x, factors });
        }
        if let Some(linear) = &block.project_out {
            let input = match &self.spec.final_norm {
                Some(norm) => {
                    let h = self.rows("h", x.cols);
                    self.norm("final_norm", norm, norm.size, x, h)?;
                    h
                }
                None => x,
            };
            self.projected = Some(self.product((layer, Role::ProjectOut), linear, input, "projected"));
        }
        self.emit(Op::Tap { blocks: layer + 1, x });
        self.blocks.push(start..self.ops.len());
        Ok(())
    }

    /// What a block's token mixer makes of `input`; `None`: it has none.
    fn mix(&mut self, layer: usize, mixer: &Mixer, input: Slice) -> Result<Option<Slice>, Error> {
        Ok(Some(match mixer {
            Mixer::Nothing => return Ok(None),
            Mixer::Attention(attention) => self.attention(layer, attention, input)?,
            Mixer::Delta(delta) => self.delta(layer, delta, input)?,
            Mixer::Space(space) => self.space(layer, space, input)?,
            Mixer::Convolution(convolution) => self.gated_convolution(layer, convolution, input),
            Mixer::Lightning(lightning) => self.lightning(layer, lightning, input)?,
            Mixer::Beside { attention, attention_factor, space } => {
                let attended = self.attention(layer, attention, input)?;
                self.factor(attended, *attention_factor);
                let y = self.space(layer, space, input)?;
                self.emit(Op::Add { x: y, y: attended });
                y
            }
        }))
    }

    /// The norm before a half of a block: `None` where there is none, or where it changes the stream itself.
    fn normed(
        &mut self,
        block: &Block,
        name: &'static str,
        norm: &Option<Norm>,
    ) -> Result<Option<Slice>, Error> {
        let Some(norm) = norm else { return Ok(None) };
        if block.norms_replace {
            self.norm(name, norm, norm.size, self.x, self.x)?;
            return Ok(None);
        }
        let h = self.rows("h", self.x.cols);
        self.norm(name, norm, norm.size, self.x, h)?;
        Ok(Some(h))
    }

    /// Multiplies the residual stream, and what a half gives, before one is added to the other.
    fn weigh(&mut self, factors: Option<(f32, f32)>, y: Slice) {
        if let Some((stream, added)) = factors {
            self.factor(self.x, stream);
            self.factor(y, added);
        }
    }

    /// Adds a half's output to the residual stream, normalised and scaled first where the family does so.
    fn add(
        &mut self,
        y: Slice,
        (name, post): (&'static str, &Option<Norm>),
        scale: Option<f32>,
    ) -> Result<(), Error> {
        if let Some(norm) = post {
            self.norm(name, norm, norm.size, y, y)?;
        }
        if let Some(factor) = scale {
            self.emit(Op::Scale { x: y, factor });
        }
        self.emit(Op::Add { x: self.x, y });
        Ok(())
    }

    /// The head, and what else is asked of the stream after the last block.
    fn finish(mut self) -> Result<Program, Error> {
        let (spec, x) = (self.spec, self.x);
        let body = std::mem::take(&mut self.ops);
        let mut normed_stream = x;
        if let Some(norm) = &spec.final_norm {
            normed_stream = self.rows("normed", x.cols);
            self.norm("final_norm", norm, norm.size, x, normed_stream)?;
        }
        let normed = std::mem::take(&mut self.ops);
        let picked = self.buffer("picked", Height::LogitRows, spec.head.weight.cols, Content::Activation);
        self.emit(Op::GatherLogitRows { x: self.projected.unwrap_or(x), out: picked });
        if let Some(norm) = spec.final_norm.as_ref().filter(|_| self.projected.is_none()) {
            self.norm("final_norm", norm, norm.size, picked, picked)?;
        }
        let logits = self.buffer("logits", Height::LogitRows, spec.vocab, Content::Activation);
        let row_norms = spec
            .head
            .normalised
            .then(|| self.buffer("head_norms", Height::Fixed(1), spec.vocab, Content::Kept));
        let (block, role) = (spec.blocks.len(), Role::Head);
        self.emit(Op::Multiply(Product { block, role, x: picked, y: logits, heads: None, row_norms }));
        if let Some(factors) = row_norms {
            self.emit(Op::MulColumns { x: logits, factors });
        }
        if let Some(bias) = &spec.head.bias {
            self.bias(bias, logits);
        }
        if let Some(factor) = spec.head.scale {
            self.emit(Op::Scale { x: logits, factor });
        }
        if let Some(cap) = spec.head.softcap {
            self.emit(Op::Softcap { x: logits, cap });
        }
        if self.updated != spec.updates.len() {
            let message = "the adapter changes matrices that are used in parts (those of compressed keys and values, or \
                           of experts): that is not supported";
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let slots = memory::share(&mut self.buffers, &self.lifetimes);
        Ok(Program {
            buffers: self.buffers,
            kept: self.kept,
            slots,
            body,
            head: self.ops,
            experts: self.experts,
            normed,
            normed_stream,
            stream: x,
            logits,
            blocks: self.blocks,
        })
    }

    /// Appends an op.
    pub(super) fn emit(&mut self, op: Op) {
        let operands = op.operands();
        self.lifetimes.touch(operands.inputs.iter().chain(&operands.output).map(|slice| slice.buffer));
        self.ops.push(op);
    }

    /// Ops that run once for each expert, apart from the others.
    pub(super) fn emit_experts(
        &mut self,
        layer: usize,
        emit: impl FnOnce(&mut Self) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let outer = std::mem::take(&mut self.ops);
        let begin = self.lifetimes.now();
        emit(self)?;
        self.lifetimes.end_loop(begin);
        let ops = std::mem::replace(&mut self.ops, outer);
        let place =
            self.experts.get_mut(layer).ok_or_else(|| defect!("block {layer} has no place for experts"))?;
        *place = ops;
        Ok(())
    }

    fn buffer(&mut self, name: &'static str, height: Height, cols: usize, content: Content) -> Slice {
        self.buffers.push(Buffer { name, height, cols, content, slot: None });
        Slice { buffer: self.buffers.len() - 1, first: 0, cols }
    }

    /// A buffer with a row for each row of the sweep.
    pub(super) fn rows(&mut self, name: &'static str, cols: usize) -> Slice {
        self.buffer(name, Height::Rows, cols, Content::Activation)
    }

    /// A buffer with a row for each row that uses an expert.
    pub(super) fn expert_rows(&mut self, name: &'static str, cols: usize) -> Slice {
        self.buffer(name, Height::ExpertRows, cols, Content::Activation)
    }

    /// A buffer with a row for each sequence that keeps a recurrent state.
    pub(super) fn state(&mut self, name: &'static str, cols: usize) -> Slice {
        self.buffer(name, Height::States, cols, Content::Kept)
    }

    /// A buffer that is filled when the model is opened.
    pub(super) fn constant(
        &mut self,
        name: &'static str,
        (rows, cols): (usize, usize),
        source: Source,
    ) -> Slice {
        self.buffer(name, Height::Fixed(rows), cols, Content::Constant(source))
    }

    /// The product of a block's matrix into a buffer of its own, with its bias.
    pub(super) fn product(
        &mut self,
        place: (usize, Role),
        linear: &Linear,
        x: Slice,
        name: &'static str,
    ) -> Slice {
        let y = self.rows(name, linear.weight.rows);
        self.product_into(place, linear, x, y);
        y
    }

    /// The same into columns of a buffer that is there.
    pub(super) fn product_into(&mut self, (block, role): (usize, Role), linear: &Linear, x: Slice, y: Slice) {
        self.emit(Op::Multiply(Product { block, role, x, y, heads: None, row_norms: None }));
        self.update((block, role), x, y);
        if let Some(bias) = &linear.bias {
            self.bias(bias, y);
        }
    }

    /// Adds what an adapter makes of the input of a block's matrix, if it changes that.
    fn update(&mut self, (block, role): (usize, Role), x: Slice, y: Slice) {
        let update = self.spec.updates.iter().find(|update| (update.block, update.role) == (block, role));
        let Some(update) = update else { return };
        let (rank, factor) = (update.rank, update.factor);
        let inner = self.kept_product(Source::Tensor(update.down.clone()), rank, x, "adapter_inner");
        self.emit(Op::Scale { x: inner, factor });
        let out = self.kept_product(Source::Tensor(update.up.clone()), y.cols, inner, "adapter_output");
        self.updated += 1;
        self.emit(Op::Add { x: y, y: out });
    }

    /// The product with a small matrix that stays on the device.
    pub(super) fn kept_product(
        &mut self,
        elements: Source,
        rows: usize,
        x: Slice,
        name: &'static str,
    ) -> Slice {
        let matrix = self.kept.len();
        self.kept.push(Kept { rows, cols: x.cols, elements });
        let out = self.rows(name, rows);
        self.emit(Op::MultiplyKept { matrix, x, out });
        out
    }

    fn bias(&mut self, bias: &Vector, x: Slice) {
        let bias = self.constant("bias", (1, x.cols), Source::Tensor(bias.clone()));
        self.emit(Op::AddBias { x, bias });
    }

    /// Normalises each group of `norm.size` columns of `x` into `out`, which may be `x`; weights and bias are repeated to
    /// `width` columns.
    pub(super) fn norm(
        &mut self,
        name: &'static str,
        norm: &Norm,
        width: usize,
        x: Slice,
        out: Slice,
    ) -> Result<(), Error> {
        // The op of root-mean-square norms repeats the weights of a group by itself.
        let repeated = if norm.kind == NormKind::Rms && norm.further.is_empty() { norm.size } else { width };
        let source = match &norm.weight {
            None => None,
            Some(weight) if norm.further.is_empty() => Some(Source::Tensor(weight.clone())),
            Some(weight) => {
                Some(Source::Joined([weight].into_iter().chain(&norm.further).cloned().collect()))
            }
        };
        match norm.kind {
            NormKind::Rms => {
                // Weights that differ from group to group are an op of their own.
                let differs = norm.weight.as_ref().is_some_and(|weight| weight.len > norm.size);
                let (source, after) = if differs { (None, source) } else { (source, None) };
                let weight = self.constant(name, (1, repeated), source.unwrap_or(Source::Fill(1.0)));
                self.emit(Op::RmsNorm { x, weight, eps: norm.eps, out });
                if let Some(source) = after {
                    let factors = self.constant(name, (1, width), source);
                    self.emit(Op::MulColumns { x: out, factors });
                }
            }
            NormKind::Layer => {
                self.emit(Op::LayerNorm { x, size: norm.size, eps: norm.eps, out });
                if let Some(source) = source {
                    let factors = self.constant(name, (1, repeated), source);
                    self.emit(Op::MulColumns { x: out, factors });
                }
            }
        }
        if let Some(bias) = &norm.bias {
            let bias = self.constant(name, (1, width), Source::Tensor(bias.clone()));
            self.emit(Op::AddBias { x: out, bias });
        }
        Ok(())
    }

    /// The cosines and sines of a rope.
    pub(super) fn angles(&self, rope: usize) -> Result<Slice, Error> {
        self.angles.get(rope).copied().ok_or_else(|| defect!("there is no rope {rope}"))
    }

    /// What queries are multiplied by.
    pub(super) fn growth(&self, growth: Growth) -> Result<Slice, Error> {
        let found = self.growths.iter().find(|(known, _)| *known == growth);
        found
            .map(|(_, slice)| *slice)
            .ok_or_else(|| defect!("{growth:?} was not found among those of the blocks"))
    }
}
