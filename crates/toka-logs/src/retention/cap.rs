//! What is removed when there is too much.

/// The older logs that have to go so that all together take at most `cap`: the oldest, by `age` (less is older), and no more
/// of them than needed. `fixed` is what cannot be removed. Sizes are in bytes.
pub(super) fn excess<T, A: Ord>(mut older: Vec<(A, u64, T)>, fixed: u64, cap: u64) -> Vec<T> {
    older.sort_by(|(one, ..), (other, ..)| one.cmp(other));
    let mut sum = u128::from(fixed) + older.iter().map(|(_, size, _)| u128::from(*size)).sum::<u128>();
    let too_much = older.into_iter().take_while(|(_, size, _)| {
        let goes = sum > u128::from(cap);
        sum -= u128::from(*size);
        goes
    });
    too_much.map(|(_, _, what)| what).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_oldest_go_and_no_more_than_needed(
            files in prop::collection::vec((0u32..50, 0u64..1000), 0..30), fixed in 0u64..2000, cap in 0u64..20_000
        ) {
            let older: Vec<_> = files.iter().enumerate().map(|(at, (age, size))| (*age, *size, at)).collect();
            let gone = excess(older, fixed, cap);
            let stays: Vec<usize> = (0..files.len()).filter(|at| !gone.contains(at)).collect();
            let sum = |of: &[usize]| of.iter().map(|at| files[*at].1).sum::<u64>();
            // Within the cap, unless all have gone.
            prop_assert!(sum(&stays) + fixed <= cap || stays.is_empty());
            // Whatever stays is at least as young as whatever goes.
            for (out, kept) in gone.iter().flat_map(|out| stays.iter().map(move |kept| (out, kept))) {
                prop_assert!(files[*out].0 <= files[*kept].0);
            }
            // Without the last that goes it would have been too much.
            if let Some(last) = gone.last() {
                prop_assert!(sum(&stays) + files[*last].1 + fixed > cap);
            }
        }
    }

    #[test]
    fn what_fits_stays_and_what_cannot_be_counted_goes() {
        assert_eq!(excess(vec![(1, 5, 'a'), (0, 5, 'b')], 0, 10), [' '; 0]);
        assert_eq!(excess(vec![(1, 5, 'a'), (0, 5, 'b')], 1, 10), ['b']);
        assert_eq!(excess(vec![(1, u64::MAX, 'a'), (0, u64::MAX, 'b')], 1, 10), ['b', 'a']);
    }
}
