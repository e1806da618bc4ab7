//! Medians.

use std::time::Duration;

/// The middle of some durations; nothing of none.
pub fn median(values: &[Duration]) -> Option<Duration> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    if sorted.len().is_multiple_of(2) {
        return Some((sorted[middle - 1] + upper) / 2);
    }
    Some(upper)
}

/// The median of the ratios of values measured in the same rounds: what made a round slow made both slow.
pub fn median_ratio(values: &[Duration], floors: &[Duration]) -> Option<f64> {
    let ratios: Vec<f64> = values
        .iter()
        .zip(floors)
        .map(|(value, floor)| value.as_secs_f64() / floor.as_secs_f64())
        .collect();
    middle(&ratios)
}

/// The middle of some numbers; nothing of none.
pub fn middle(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    if sorted.len().is_multiple_of(2) {
        return Some(f64::midpoint(sorted[middle - 1], upper));
    }
    Some(upper)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(milliseconds: &[u64]) -> Vec<Duration> {
        milliseconds
            .iter()
            .copied()
            .map(Duration::from_millis)
            .collect()
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&all(&[9, 1, 5])), Some(Duration::from_millis(5)));
        assert_eq!(
            median(&all(&[9, 1, 5, 6])),
            Some(Duration::from_micros(5500))
        );
    }

    #[test]
    fn ratios_are_those_of_a_round() {
        assert_eq!(median_ratio(&[], &[]), None);
        let ratio = median_ratio(&all(&[20, 200, 40]), &all(&[10, 100, 10]));
        assert_eq!(ratio, Some(2.0));
    }
}
