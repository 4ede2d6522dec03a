//! What is kept of outcomes, as bytes: numbers of four bytes, little-endian.

/// The bytes of f32 numbers; NaN stands for one that is not there.
pub(crate) fn floats(numbers: impl IntoIterator<Item = f32>) -> Vec<u8> {
    numbers.into_iter().flat_map(f32::to_le_bytes).collect()
}

/// The bytes of u32 numbers.
pub(crate) fn ids(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|n| n.to_le_bytes()).collect()
}

/// The f32 numbers of bytes; `None` if there is a rest.
pub(crate) fn to_floats(bytes: &[u8]) -> Option<Vec<f32>> {
    let (chunks, rest) = bytes.as_chunks::<4>();
    rest.is_empty().then(|| chunks.iter().map(|c| f32::from_le_bytes(*c)).collect())
}

/// The u32 numbers of bytes; `None` if there is a rest.
pub(crate) fn to_ids(bytes: &[u8]) -> Option<Vec<u32>> {
    let (chunks, rest) = bytes.as_chunks::<4>();
    rest.is_empty().then(|| chunks.iter().map(|c| u32::from_le_bytes(*c)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_bit_for_bit() {
        let numbers = [0.1, -0.0, f32::MIN_POSITIVE / 3.0, f32::INFINITY, 1e-45];
        let back = to_floats(&floats(numbers)).unwrap();
        assert!(numbers.iter().zip(&back).all(|(a, b)| a.to_bits() == b.to_bits()));
        assert!(to_floats(&floats([f32::NAN])).unwrap()[0].is_nan());
        assert_eq!(to_ids(&ids(&[0, 7, u32::MAX])), Some(vec![0, 7, u32::MAX]));
        assert_eq!((to_floats(&[1, 2, 3]), to_ids(&[1])), (None, None));
    }
}
