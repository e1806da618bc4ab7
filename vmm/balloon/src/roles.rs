//! Which queue is for what.

use vmm_virtio::Broken;

use crate::device::{REPORTING, STATISTICS};

/// Which queue is for what, besides the first two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Roles {
    pub(crate) statistics: Option<usize>,
    pub(crate) reporting: Option<usize>,
}

impl Roles {
    /// By the standard the third queue is for statistics and the fifth for reports (5.5.2). Linux gave queues the next
    /// free number instead: its reports are in the first queue that is left.
    pub(crate) fn find(features: u64, there: impl Fn(usize) -> bool) -> Result<Self, Broken> {
        let agreed = |feature| features & feature != 0;
        let statistics = agreed(STATISTICS).then_some(2);
        let next = if agreed(STATISTICS) { 3 } else { 2 };
        let reporting = if agreed(REPORTING) {
            let queue = [4, next].into_iter().find(|&number| there(number));
            Some(queue.ok_or(Broken("a balloon has no queue for reports"))?)
        } else {
            None
        };
        if statistics.is_some_and(|number| !there(number)) {
            return Err(Broken("a balloon has no queue for statistics"));
        }
        Ok(Self {
            statistics,
            reporting,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_of_counting_queues_are_understood() {
        let roles = |features, there: &[usize]| {
            let roles = Roles::find(features, |number| there.contains(&number)).ok()?;
            Some((roles.statistics, roles.reporting))
        };
        let both = STATISTICS | REPORTING;
        assert_eq!(roles(both, &[2, 4]), Some((Some(2), Some(4))));
        assert_eq!(roles(both, &[2, 3]), Some((Some(2), Some(3))));
        assert_eq!(roles(REPORTING, &[4]), Some((None, Some(4))));
        assert_eq!(roles(REPORTING, &[2]), Some((None, Some(2))));
        assert_eq!(roles(STATISTICS, &[2]), Some((Some(2), None)));
        assert_eq!(roles(0, &[]), Some((None, None)));
        assert_eq!(roles(both, &[2]), None);
        assert_eq!(roles(both, &[3]), None);
        assert_eq!(roles(REPORTING, &[3]), None);
        assert_eq!(roles(STATISTICS, &[]), None);
        // A driver that sets all of them up means the standard.
        assert_eq!(roles(both, &[2, 3, 4]), Some((Some(2), Some(4))));
    }
}
