//! Names that nobody has to guess, times, and seeds.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// 64 bits that are other ones each time; keyed by the system's randomness.
fn random() -> u64 {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u64(COUNT.fetch_add(1, Ordering::Relaxed));
    hasher.write_u128(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_nanos()));
    hasher.finish()
}

/// 32 hexadecimal digits.
pub(crate) fn hex() -> String {
    format!("{:016x}{:016x}", random(), random())
}

/// A seed that every client can send back: JavaScript holds numbers up to 53 bits.
pub(crate) fn seed() -> u64 {
    random() >> 16
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs())
}

/// Whether a text is an id of this kind: `file-` and 32 hexadecimal digits, say. No other text comes near a path.
pub(crate) fn is_id(text: &str, prefix: &str) -> bool {
    let digits = text.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('-'));
    digits.is_some_and(|digits| is_hex(digits, 32))
}

/// Whether a text is so many hexadecimal digits, as [`hex`] writes them.
pub(crate) fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_what_they_seem() {
        let id = format!("file-{}", hex());
        assert!(is_id(&id, "file") && !is_id(&id, "batch"));
        assert_ne!(hex(), hex());
        for bad in ["file-../../etc/passwd", "file-", "file-ABCDEF", "", "file-%2e%2e", &format!("{id}0")] {
            assert!(!is_id(bad, "file"), "{bad}");
        }
        assert!(seed() < 1 << 48);
    }
}
