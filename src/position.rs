//! Positions in a log: an offset is always the *next* one to read, a span is half-open.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};

/// Offsets `[from, to)` of one partition. Gaps inside (compaction, transactions) are allowed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The partition.
    pub partition: i32,
    /// The first offset of the span.
    pub from: i64,
    /// The offset after the last one.
    pub to: i64,
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "partition {} [{}, {})", self.partition, self.from, self.to)
    }
}

/// The next offset to read of each partition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Positions(BTreeMap<i32, i64>);

impl Positions {
    /// The next offset of `partition`, if the partition is known.
    pub fn get(&self, partition: i32) -> Option<i64> {
        self.0.get(&partition).copied()
    }

    /// Sets the next offset of `partition`, whatever it was.
    pub fn set(&mut self, partition: i32, offset: i64) {
        self.0.insert(partition, offset);
    }

    /// All partitions in order, each with its next offset.
    pub fn iter(&self) -> impl Iterator<Item = (i32, i64)> + '_ {
        self.0.iter().map(|(&partition, &offset)| (partition, offset))
    }

    /// How many partitions are known.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no partition is known.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Moves over `span`. The span must begin where the partition stands (or the partition is new);
    /// otherwise nothing changes and the error names both.
    pub fn advance(&mut self, span: Span) -> Result<()> {
        let at = self.0.entry(span.partition).or_insert(span.from);
        if *at != span.from || span.to < span.from {
            return Err(Error::new(Kind::Bug, format!("{span} does not continue position {at}")));
        }
        *at = span.to;
        Ok(())
    }

    /// Whether every partition of `ends` has been read up to its offset there.
    pub fn reached(&self, ends: &Positions) -> bool {
        ends.iter().all(|(partition, end)| end <= 0 || self.get(partition).is_some_and(|at| at >= end))
    }

    /// How many offsets lie between these positions and `ends`, summed over the partitions of `ends`.
    pub fn behind(&self, ends: &Positions) -> i64 {
        ends.iter().map(|(partition, end)| (end - self.get(partition).unwrap_or(0)).max(0)).sum()
    }
}

impl FromIterator<(i32, i64)> for Positions {
    fn from_iter<I: IntoIterator<Item = (i32, i64)>>(items: I) -> Self {
        Self(items.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_moves_only_over_a_span_that_touches_it() {
        // (at, from, to) -> after
        for (at, from, to, after) in [
            (None, 5, 9, Some(9)),
            (Some(5), 5, 9, Some(9)),
            (Some(5), 5, 5, Some(5)),
            (Some(5), 6, 9, None),
            (Some(5), 4, 9, None),
            (Some(5), 5, 4, None),
        ] {
            let mut positions: Positions = at.map(|at| (0, at)).into_iter().collect();
            let moved = positions.advance(Span { partition: 0, from, to });
            assert_eq!(moved.is_ok(), after.is_some(), "{at:?} over [{from}, {to})");
            assert_eq!(positions.get(0), after.or(at));
        }
    }
}
