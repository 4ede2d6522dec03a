//! Rows of the embedding that were read lately. Text uses the same tokens again and again, and a row that is read alone
//! costs a disk as much as a hundred that lie together.

use std::collections::HashMap;

/// The rows read last, as stored.
#[derive(Debug)]
pub(crate) struct KeptRows {
    rows_max: usize,
    row_bytes: usize,
    /// Where the row of a token is, and the token of each row.
    places: HashMap<u32, usize>,
    tokens: Vec<u32>,
    bytes: Vec<u8>,
    /// The row that is given up next.
    oldest: usize,
}

impl KeptRows {
    /// Room for so many rows, which takes memory as it fills.
    pub(crate) fn new(rows_max: usize, row_bytes: usize) -> Self {
        Self {
            rows_max,
            row_bytes,
            places: HashMap::with_capacity(rows_max),
            tokens: Vec::with_capacity(rows_max),
            bytes: Vec::with_capacity(rows_max * row_bytes),
            oldest: 0,
        }
    }

    /// The row of a token, if it is here.
    pub(crate) fn get(&self, token: u32) -> Option<&[u8]> {
        let place = *self.places.get(&token)?;
        self.bytes.get(place * self.row_bytes..(place + 1) * self.row_bytes)
    }

    /// Takes in the row of a token, in place of the one that came first where there is no room.
    pub(crate) fn keep(&mut self, token: u32, row: &[u8]) {
        if self.rows_max == 0 || self.places.contains_key(&token) {
            return;
        }
        if self.tokens.len() < self.rows_max {
            self.places.insert(token, self.tokens.len());
            self.tokens.push(token);
            self.bytes.extend_from_slice(row);
            return;
        }
        let place = self.oldest;
        self.oldest = (place + 1) % self.rows_max;
        self.places.remove(&std::mem::replace(&mut self.tokens[place], token));
        self.places.insert(token, place);
        self.bytes[place * self.row_bytes..][..self.row_bytes].copy_from_slice(row);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_row_that_came_first_makes_room() {
        let mut kept = KeptRows::new(3, 2);
        for token in [5, 6, 5, 7, 8, 9, 5] {
            kept.keep(token, &[token as u8, 1]);
        }
        let here: Vec<u32> = (0..20).filter(|token| kept.get(*token).is_some()).collect();
        assert_eq!(here, [5, 8, 9]);
        assert!(here.iter().all(|token| kept.get(*token) == Some(&[*token as u8, 1])));
        let mut none = KeptRows::new(0, 2);
        none.keep(1, &[1, 1]);
        assert_eq!(none.get(1), None);
    }
}
