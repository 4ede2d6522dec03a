//! The rules that operands obey, for devices with memory of their own: what the devices on the host check before a kernel runs.

pub use crate::check::{
    apart, attention, columns, copy_heads, factors, heads, inputs, kv_layout, mat, rope, rows, same_or_apart,
    same_shape, shape, tile,
};
pub use crate::delta::{check_conv, check_rule};
pub use crate::numbers::check_codes;
pub use crate::rows::Rows;
pub use crate::scan::check_scan;
pub use crate::sparse::{check_attention, check_index};
