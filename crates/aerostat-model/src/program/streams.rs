//! Several residual streams, side by side in one buffer, and shortcuts beside attention.

use aerostat_arch::{Block, Linear, Mixing, Norm, NormKind, Role, Shortcut, Streams};
use aerostat_backend::{Activation, Error, defect};

use super::compile::Compiler;
use super::{Op, Slice, Source};

/// Added to means of squares so that a row of zeros stays one; far below those of any other.
const EPS: f32 = 1e-12;

impl Compiler<'_> {
    /// The streams before the first block, if there are several.
    pub(super) fn enter_streams(&mut self) -> Result<(), Error> {
        let Some(Streams { count, .. }) = self.spec.streams else { return Ok(()) };
        let x = self.x;
        let all = self.rows("streams", count * x.cols);
        self.take(x, all.columns(0, x.cols));
        let size = self.size_of_rows(x)?;
        let further = self.spec.blocks.first().map_or(&[][..], |block| &block.streams_in);
        for (i, linear) in (1u8..).zip(further) {
            let stream = all.columns(usize::from(i) * x.cols, x.cols);
            self.product_into((0, Role::StreamIn(i)), linear, x, stream);
            self.as_large(stream, size)?;
        }
        self.streams = Some(all);
        Ok(())
    }

    /// Predicts all streams before a block, and makes the active one what the block reads and changes.
    pub(super) fn predict(&mut self, block: &Block) -> Result<Option<Slice>, Error> {
        let Some((mixing, all, streams)) = self.mixed(block)? else { return Ok(None) };
        let (x, count) = (self.x, streams.count);
        let coefficients = self.coefficients(mixing, all.columns(streams.active * x.cols, x.cols))?;
        let predict = Source::Tensor(mixing.predict.clone());
        let factors = self.kept_product(predict, count * count, coefficients, "predict");
        let (predicted, term) = (self.rows("predicted", all.cols), self.rows("term", x.cols));
        self.take(all, predicted);
        for (b, a) in (0..count).flat_map(|b| (0..count).map(move |a| (b, a))) {
            let to = predicted.columns(b * x.cols, x.cols);
            self.add_times(to, all.columns(a * x.cols, x.cols), factors.columns(b * count + a, 1), term);
        }
        self.take(predicted.columns(streams.active * x.cols, x.cols), x);
        Ok(Some(predicted))
    }

    /// Corrects what was predicted by what the block made, and adds the block's further input.
    pub(super) fn correct(&mut self, layer: usize, block: &Block, predicted: Slice) -> Result<(), Error> {
        let Some((mixing, all, streams)) = self.mixed(block)? else { return Ok(()) };
        let (x, count) = (self.x, streams.count);
        let coefficients = self.coefficients(mixing, x)?;
        let factors =
            self.kept_product(Source::Tensor(mixing.correct.clone()), count, coefficients, "correct");
        let ones = self.constant("ones", (1, count), Source::Fill(1.0));
        self.emit(Op::AddBias { x: factors, bias: ones });
        let (change, term) = (self.rows("change", x.cols), self.rows("term", x.cols));
        self.take(predicted.columns(streams.active * x.cols, x.cols), change);
        self.emit(Op::Scale { x: change, factor: -1.0 });
        self.emit(Op::Add { x: change, y: x });
        self.take(predicted, all);
        for b in 0..count {
            self.add_times(all.columns(b * x.cols, x.cols), change, factors.columns(b, 1), term);
        }
        if let Some(further) = &block.layer_input {
            self.take(all.columns(streams.active * x.cols, x.cols), x);
            if let Some(scale) = &mixing.scale {
                let factors = self.constant("correct_scale", (1, x.cols), Source::Tensor(scale.clone()));
                self.emit(Op::MulColumns { x, factors });
            }
            let y = self.further_input(layer, further)?;
            (1..count).for_each(|b| self.emit(Op::Add { x: all.columns(b * x.cols, x.cols), y }));
        }
        self.take(all.columns(0, x.cols), x);
        if !block.streams_out.is_empty() {
            self.leave_streams(layer, &block.streams_out, all)?;
        }
        Ok(())
    }

    /// The mean of the streams after the last block.
    fn leave_streams(&mut self, layer: usize, further: &[Linear], all: Slice) -> Result<(), Error> {
        let x = self.x;
        let size = self.size_of_rows(x)?;
        for (i, linear) in (1u8..).zip(further) {
            let stream = all.columns(usize::from(i) * x.cols, x.cols);
            let y = self.product((layer, Role::StreamOut(i)), linear, stream, "y");
            self.as_large(y, size)?;
            self.emit(Op::Add { x, y });
        }
        self.emit(Op::Scale { x, factor: 1.0 / (1 + further.len()) as f32 });
        Ok(())
    }

    /// What a shortcut makes of what attention reads.
    pub(super) fn shortcut(
        &mut self,
        layer: usize,
        shortcut: &Option<Shortcut>,
        input: Slice,
    ) -> Result<Option<Slice>, Error> {
        let Some(Shortcut { down, up, norm }) = shortcut else { return Ok(None) };
        let low = self.product((layer, Role::ShortcutDown), down, input, "shortcut_low");
        let out = self.product((layer, Role::ShortcutUp), up, low, "shortcut");
        self.norm("shortcut_norm", norm, norm.size, out, out)?;
        self.emit(Op::Add { x: out, y: input });
        Ok(Some(out))
    }

    /// Adds it to the stream, once attention is added.
    pub(super) fn close_shortcut(&mut self, out: Slice) {
        self.emit(Op::Add { x: self.x, y: out });
        self.emit(Op::Scale { x: self.x, factor: std::f32::consts::FRAC_1_SQRT_2 });
    }

    /// The gate's inputs less what lies so many deviations above the mean of their row, and 0 below that.
    pub(super) fn cut(&mut self, gate: Slice, deviations: f32) -> Slice {
        let normed = self.rows("cut", gate.cols);
        self.emit(Op::LayerNorm { x: gate, size: gate.cols, eps: EPS, out: normed });
        // The mean of x * (x - mean) / deviation is the deviation.
        self.emit(Op::Mul { x: gate, y: normed });
        let deviation = self.mean(gate);
        let least = self.constant("least", (1, gate.cols), Source::Fill(-deviations));
        self.emit(Op::AddBias { x: normed, bias: least });
        self.emit(Op::Activate { x: normed, activation: Activation::Relu });
        self.emit(Op::MulRows { x: normed, factors: deviation });
        normed
    }

    fn mixed<'b>(&self, block: &'b Block) -> Result<Option<(&'b Mixing, Slice, Streams)>, Error> {
        let Some(mixing) = &block.mixing else { return Ok(None) };
        let found = self.streams.zip(self.spec.streams);
        let (all, streams) = found.ok_or_else(|| defect!("a block mixes streams, and there is one"))?;
        Ok(Some((mixing, all, streams)))
    }

    /// A number for each stream, of one of them.
    fn coefficients(&mut self, mixing: &Mixing, of: Slice) -> Result<Slice, Error> {
        let h = self.rows("h", of.cols);
        self.norm("mixing_norm", &mixing.norm, mixing.norm.size, of, h)?;
        self.emit(Op::Scale { x: h, factor: mixing.factor });
        let router = Source::Tensor(mixing.router.clone());
        let out = self.kept_product(router, mixing.router.len / of.cols.max(1), h, "coefficients");
        self.emit(Op::Activate { x: out, activation: Activation::Tanh });
        Ok(out)
    }

    /// The root mean square of each row, `[rows, 1]`.
    fn size_of_rows(&mut self, x: Slice) -> Result<Slice, Error> {
        // The mean of x * x / root mean square is that root.
        let squares = self.rows("squares", x.cols);
        self.norm("sizes", &bare(x.cols), x.cols, x, squares)?;
        self.emit(Op::Mul { x: squares, y: x });
        Ok(self.mean(squares))
    }

    /// Makes the root mean square of each row what `size` says.
    fn as_large(&mut self, x: Slice, size: Slice) -> Result<(), Error> {
        self.norm("sizes", &bare(x.cols), x.cols, x, x)?;
        self.emit(Op::MulRows { x, factors: size });
        Ok(())
    }

    /// The mean of each row, `[rows, 1]`.
    fn mean(&mut self, x: Slice) -> Slice {
        self.kept_product(Source::Fill(1.0 / x.cols.max(1) as f32), 1, x, "mean")
    }

    fn take(&mut self, x: Slice, out: Slice) {
        self.emit(Op::TakeColumns { x, first: 0, step: 1, out });
    }

    /// `to += x * factors`, by way of `term`.
    fn add_times(&mut self, to: Slice, x: Slice, factors: Slice, term: Slice) {
        self.take(x, term);
        self.emit(Op::MulRows { x: term, factors });
        self.emit(Op::Add { x: to, y: term });
    }
}

/// A norm without weights.
fn bare(size: usize) -> Norm {
    Norm { kind: NormKind::Rms, size, weight: None, further: Vec::new(), bias: None, eps: EPS }
}
