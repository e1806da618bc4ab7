//! Which blocks are plugged.

use std::ops::Range;

/// One bit for each block.
#[derive(Debug)]
pub(crate) struct Bitmap {
    words: Vec<u64>,
    set: usize,
}

impl Bitmap {
    /// So many blocks, none of them plugged.
    pub(crate) fn new(blocks: usize) -> Self {
        Self {
            words: vec![0; blocks.div_ceil(64)],
            set: 0,
        }
    }

    /// How many are plugged.
    pub(crate) fn count(&self) -> usize {
        self.set
    }

    /// How many of these are plugged; none are behind the end.
    pub(crate) fn count_in(&self, range: Range<usize>) -> usize {
        self.masks(range)
            .map(|(word, mask)| (self.words[word] & mask).count_ones() as usize)
            .sum()
    }

    /// Says of all these whether they are plugged.
    pub(crate) fn set(&mut self, range: Range<usize>, plugged: bool) {
        let before = self.count_in(range.clone());
        let masks: Vec<_> = self.masks(range.clone()).collect();
        for (word, mask) in masks {
            if plugged {
                self.words[word] |= mask;
            } else {
                self.words[word] &= !mask;
            }
        }
        self.set = self.set - before + self.count_in(range);
    }

    /// The first plugged blocks that follow one another, at most so many.
    pub(crate) fn first_run(&self, most: usize) -> Option<Range<usize>> {
        let word = self.words.iter().position(|&word| word != 0)?;
        let first = word * 64 + self.words[word].trailing_zeros() as usize;
        let mut end = first;
        while end - first < most && self.count_in(end..end + 1) == 1 {
            end += 1;
        }
        Some(first..end)
    }

    /// The words that a range has a part in, and its bits there.
    fn masks(&self, range: Range<usize>) -> impl Iterator<Item = (usize, u64)> + use<> {
        let end = range.end.min(self.words.len() * 64);
        let words = if range.start < end {
            range.start / 64..end.div_ceil(64)
        } else {
            0..0
        };
        words.map(move |word| {
            let low = range.start.saturating_sub(word * 64);
            let high = (end - word * 64).min(64);
            let ones = u64::MAX >> (64 - (high - low));
            (word, ones << low)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn it_is_a_set(blocks in 1..300_usize, steps in prop::collection::vec((0..320_usize, 0..320_usize, any::<bool>(), 1..9_usize), 0..40)) {
            let mut bitmap = Bitmap::new(blocks);
            let mut model = BTreeSet::new();
            let room = blocks.next_multiple_of(64);
            for (one, other, plugged, most) in steps {
                let range = one.min(other)..one.max(other);
                let inside = range.start.min(room)..range.end.min(room);
                bitmap.set(range.clone(), plugged);
                for block in inside.clone() {
                    if plugged {
                        model.insert(block);
                    } else {
                        model.remove(&block);
                    }
                }
                prop_assert_eq!(bitmap.count(), model.len());
                let near = one / 2..other;
                prop_assert_eq!(bitmap.count_in(near.clone()), model.iter().filter(|block| near.contains(block)).count());
                let run = model.first().map(|&first| {
                    let length = (first..first + most).take_while(|block| model.contains(block)).count();
                    first..first + length
                });
                prop_assert_eq!(bitmap.first_run(most), run);
            }
        }
    }
}
