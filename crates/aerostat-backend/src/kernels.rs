//! What a host device is made of: kernels over checked operands, and host memory.

use crate::delta::StateRun;
use crate::numerics::Map;
use crate::quantised::Quantised;
use crate::{
    Attention, Capabilities, DeltaRule, Error, Extras, Footprint, HeadCopy, HostMemory, Index, KvView,
    Placement, Rope, ScratchNeed, StateScan, Tile, View, packed,
};
#[allow(unused_imports, reason = "for the documentation")]
use crate::{Backend, numerics};

/// The ops that differ between host devices. All operands have been checked: shapes fit, outputs are apart from
/// inputs (or the same where the op allows it), pages exist, tiles have their bytes. Kernels may lean on that for
/// memory safety, so nobody else may call them: a device keeps them private but for [`HostDevice::parts`].
pub trait Kernels: Send {
    /// What this device can do.
    fn capabilities(&self) -> Capabilities;

    /// [`Backend::footprint`](crate::Backend::footprint) of what kernels allocate themselves.
    fn footprint(&self, _need: &ScratchNeed) -> Footprint {
        Footprint::default()
    }

    /// [`Backend::reserve`](crate::Backend::reserve) of what kernels allocate themselves.
    fn reserve(&mut self, _need: &ScratchNeed) -> Result<(), Error> {
        Ok(())
    }

    /// Bytes that kernels have allocated.
    fn scratch_bytes(&self) -> u64 {
        0
    }

    /// Allocates what attention over up to `positions` positions needs. Called at open only.
    fn reserve_positions(&mut self, positions: usize) -> Result<(), Error>;

    /// Told of each large allocation before it is touched, from its start: a device may ask for huge pages there.
    fn advise(&self, _start: *const u8, _bytes: usize) {}

    /// [`Backend::matmul`]; fails only where the format is not one that the device can do.
    fn matmul(&mut self, w: Tile<'_>, x: View<'_>, y: View<'_>) -> Result<(), Error>;

    /// [`Backend::matmul_scaled`]; fails only for want of scratch.
    fn matmul_scaled(
        &mut self,
        w: Tile<'_>,
        scaling: ScalingView<'_>,
        x: View<'_>,
        y: View<'_>,
    ) -> Result<(), Error>;

    /// [`Backend::matmul_scaled_k_major`] of a tile of `rows` inputs, added to `lanes`, `[x.rows, 16 * outputs]`: lane `k % 16` of
    /// output `n` is column `k % 16 * outputs + n`. At `k0 = 0` what was there is forgotten. Fails only for want of scratch.
    fn matmul_scaled_k_major(
        &mut self,
        w: Tile<'_>,
        rows: usize,
        scaling: ScalingView<'_>,
        x: View<'_>,
        lanes: View<'_>,
        k0: usize,
    ) -> Result<(), Error>;

    /// [`Backend::matmul_k_major`] of a tile, added to `lanes` as in [`matmul_scaled_k_major`](Self::matmul_scaled_k_major);
    /// fails as [`matmul`](Self::matmul) does.
    fn matmul_k_major(&mut self, w: Tile<'_>, x: View<'_>, lanes: View<'_>, k0: usize) -> Result<(), Error>;

    /// `y[r, n]` is the sum of the lanes `l * y.cols + n` of row `r`, in canonical order ([`numerics::reduce`]).
    fn sum_lanes(&mut self, lanes: View<'_>, y: View<'_>);

    /// `out[r, c] = map(a[r, c], b[r, c])`; `out` may be `a` or `b`, and `b` may be one row repeated.
    fn map(&mut self, map: Map, a: View<'_>, b: View<'_>, out: View<'_>);

    /// [`Backend::matmul`], or with scales [`Backend::matmul_scaled`], of [packed tiles](crate::packed), which have not been
    /// looked at yet; `checked` says that their checksums have.
    ///
    /// # Errors
    /// `Corrupt`, and then `y` means nothing.
    fn matmul_packed(
        &mut self,
        w: Tile<'_>,
        _checked: bool,
        scaling: Option<ScalingView<'_>>,
        x: View<'_>,
        y: View<'_>,
    ) -> Result<(), Error> {
        let (mut start, mut bytes) = (0, Vec::new());
        for part in packed::parts(&w) {
            let part = part?;
            bytes.clear();
            part.expand(&mut bytes)?;
            let tile = Tile { rows: part.rows, bytes: &bytes, ..w };
            let y = y.col_range(start, part.rows);
            match scaling {
                Some(scaling) => self.matmul_scaled(tile, scaling.from_row(start), x, y)?,
                None => self.matmul(tile, x, y)?,
            }
            start += part.rows;
        }
        Ok(())
    }

    /// [`Backend::row_norms`] of a plain tile in a format that the device can do; `out` has an element for each of its rows.
    fn row_norms(&mut self, w: Tile<'_>, out: View<'_>) -> Result<(), Error>;

    /// [`Backend::mul_rows`].
    fn mul_rows(&mut self, x: View<'_>, factors: View<'_>);

    /// [`Backend::copy_heads`].
    fn copy_heads(&mut self, x: View<'_>, copy: &HeadCopy, out: View<'_>);

    /// [`Backend::rms_norm`]; `weight` has one row.
    fn rms_norm(&mut self, x: View<'_>, weight: View<'_>, eps: f32, out: View<'_>);

    /// [`Backend::layer_norm`].
    fn layer_norm(&mut self, x: View<'_>, size: usize, eps: f32, out: View<'_>);

    /// [`Backend::rope`].
    fn rope(&mut self, x: View<'_>, rope: Rope, angles: View<'_>);

    /// [`Backend::attention`].
    fn attention(
        &mut self,
        q: View<'_>,
        out: View<'_>,
        shape: &Attention,
        extras: Extras<View<'_>>,
        kv: KvView<'_>,
        places: Placement<'_>,
    );

    /// [`Backend::select_positions`].
    fn select_positions(
        &mut self,
        q: View<'_>,
        weights: View<'_>,
        out: View<'_>,
        index: &Index,
        kv: KvView<'_>,
        places: Placement<'_>,
    );

    /// [`Backend::sparse_attention`]; each row of `selected` has a position and more, ascending, none
    /// above the row's own, up to the first element that is negative.
    fn sparse_attention(
        &mut self,
        q: View<'_>,
        out: View<'_>,
        shape: &Attention,
        kv: KvView<'_>,
        places: Placement<'_>,
        selected: View<'_>,
    );

    /// [`Backend::short_conv`] with these weights and this bias; of `runs` no two are of one slot.
    fn short_conv(
        &mut self,
        x: View<'_>,
        weights: (View<'_>, Option<View<'_>>),
        silu: bool,
        state: View<'_>,
        runs: &[StateRun],
    );

    /// [`Backend::delta_rule`]; of `runs` no two are of one slot.
    fn delta_rule(
        &mut self,
        x: View<'_>,
        strengths: View<'_>,
        parameters: View<'_>,
        state: View<'_>,
        out: View<'_>,
        rule: &DeltaRule,
        runs: &[StateRun],
    );

    /// [`Backend::state_scan`]; of `runs` no two are of one slot.
    fn state_scan(
        &mut self,
        x: View<'_>,
        steps: View<'_>,
        parameters: View<'_>,
        state: View<'_>,
        out: View<'_>,
        scan: &StateScan,
        runs: &[StateRun],
    );
}

/// A [`Scaling`](crate::Scaling) whose scales are at hand.
#[derive(Clone, Copy)]
pub struct ScalingView<'a> {
    /// How elements are stored as codes, and what is done to them after they are scaled.
    pub quantised: Quantised,
    /// The scales of the whole matrix, one for each block.
    pub scales: View<'a>,
    /// Zero points, of the shape of `scales`.
    pub zeros: Option<View<'a>>,
    /// `[1, inputs]`: in place of blocks, the group of each input.
    pub groups: Option<View<'a>>,
    /// Stored rows of a block that shares a scale.
    pub block_rows: usize,
    /// Columns of a block that shares a scale.
    pub block_cols: usize,
    /// Which row of the matrix the tile begins with.
    pub first_row: usize,
}

impl ScalingView<'_> {
    /// The same from a later row of the tile on.
    #[must_use]
    pub fn from_row(self, row: usize) -> Self {
        Self { first_row: self.first_row + row, ..self }
    }
}

/// A device made of kernels and host memory; it is a [`Backend`].
pub trait HostDevice: Send {
    /// Its kernels.
    type Kernels: Kernels;

    /// Its kernels, to ask them.
    fn kernels(&self) -> &Self::Kernels;

    /// Its memory, to ask it.
    fn memory(&self) -> &HostMemory;

    /// Its memory and its kernels, to work.
    fn parts(&mut self, checks: Checks) -> (&mut HostMemory, &mut Self::Kernels);
}

/// The right to call kernels, which only this crate can give itself: kernels lean on checked operands.
pub struct Checks(());

impl Checks {
    /// Operands have been checked.
    pub(crate) fn done() -> Self {
        Self(())
    }
}
