//! Columns that are copied from head to head.

use aerostat_backend::HeadCopy;

use crate::isa::Kernel;
use crate::rows::Rows;
use crate::vector::Vector;

/// Columns of every head of the rows `start .. end`; both matrices have as many whole heads, which have the columns, and
/// share no element.
pub(crate) struct CopyHeads {
    pub(crate) x: Rows,
    pub(crate) copy: HeadCopy,
    pub(crate) out: Rows,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

impl Kernel for CopyHeads {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector, const M: usize, const N: usize>(self) {
        let HeadCopy { from_dim, from_start, to_dim, to_start, len } = self.copy;
        for row in self.start..self.end {
            for head in 0..self.x.cols / from_dim {
                let from = self.x.at(row, head * from_dim + from_start);
                let to = self.out.at(row, head * to_dim + to_start);
                // SAFETY: the promise of the struct.
                unsafe { std::ptr::copy_nonoverlapping(from.cast_const(), to, len) };
            }
        }
    }
}
