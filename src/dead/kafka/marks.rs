//! Which letters were replayed or purged: marks on the letters' own topic, so that they are gone when it is.
//!
//! A mark is a record without a payload, which whoever reads the topic as a source passes over. It stands in the partition of its
//! letters, behind them, and names them by [`LetterId`] in a header.

use std::collections::BTreeMap;

use hashbrown::HashMap;
use rdkafka::message::{Header, Headers as _, Message, OwnedHeaders};

use crate::clock::Clock;
use crate::dead::letter::LetterId;
use crate::error::{Error, Kind, Result};
use crate::kafka::Bounds;

/// Says what a mark is.
const MARK: &str = "falaj.dlq.mark";
/// The letters' ids, 32 digits each.
const LETTERS: &str = "falaj.dlq.letters";
/// Some 40 bytes each are held while a command runs.
const MARKED_MAX: usize = 4 << 20;

/// Where a record stands: partition and offset.
pub(super) type At = (i32, i64);

/// The letters that are marked, each with the place of its mark.
#[derive(Debug, Default)]
pub(super) struct Marks {
    at: HashMap<LetterId, At>,
}

impl Marks {
    /// Takes in a record of the letters' topic. `true`: it is a mark.
    pub(super) fn note(&mut self, record: &impl Message) -> Result<bool> {
        let Some(ids) = read(record) else { return Ok(false) };
        ids.into_iter().try_for_each(|id| self.add(id, (record.partition(), record.offset()), record.topic()))?;
        Ok(true)
    }

    /// The letter `id` is marked, by the record `at`.
    pub(super) fn add(&mut self, id: LetterId, at: At, topic: &str) -> Result<()> {
        self.at.insert(id, at);
        if self.at.len() <= MARKED_MAX {
            return Ok(());
        }
        let text = format!(
            "'{topic}' has marks of more than {MARKED_MAX} letters that were replayed or purged; delete its oldest records by kafka-delete-records.sh"
        );
        Err(Error::new(Kind::Full, text))
    }

    /// Where the mark of `id` stands, if there is one.
    pub(super) fn of(&self, id: LetterId) -> Option<At> {
        self.at.get(&id).copied()
    }
}

/// Whether `record` is a mark.
pub(super) fn is_mark(record: &impl Message) -> bool {
    record.payload().is_none() && header(record, MARK).is_some()
}

fn read(record: &impl Message) -> Option<Vec<LetterId>> {
    if !is_mark(record) {
        return None;
    }
    let text = header(record, LETTERS)?;
    Some(text.split(' ').filter_map(|id| u128::from_str_radix(id, 16).ok().map(LetterId)).collect())
}

fn header<'m>(record: &'m impl Message, name: &str) -> Option<&'m str> {
    let value = record.headers()?.iter().find(|header| header.key == name)?.value?;
    str::from_utf8(value).ok()
}

/// The headers of a mark that says `what` became of these letters.
pub(super) fn headers(what: &str, letters: &[LetterId]) -> OwnedHeaders {
    let ids: Vec<String> = letters.iter().map(|LetterId(id)| format!("{id:032x}")).collect();
    let (ids, now_ms) = (ids.join(" "), Clock::system().now_ms().to_string());
    let add = |headers: OwnedHeaders, key: &str, value: &str| headers.insert(Header { key, value: Some(value) });
    let headers = add(OwnedHeaders::new(), MARK, what);
    add(add(headers, LETTERS, &ids), "falaj.dlq.timestamp_ms", &now_ms)
}

/// What may be deleted of the letters' topic: the oldest records of a partition, as far as they are letters that are marked, and marks
/// that no later letter needs.
#[derive(Debug, Default)]
pub(super) struct Deletable {
    needed: bool,
    first_needed: BTreeMap<i32, i64>,
}

impl Deletable {
    /// The record `at` must stay.
    pub(super) fn stays(&mut self, at: At) {
        self.needed = true;
        self.limit(at);
    }

    /// The letter `at` is marked by the record `mark`.
    pub(super) fn is_marked(&mut self, at: At, mark: At) {
        // Written once more behind its mark, or elsewhere: without the mark it would be back.
        if mark.0 != at.0 || mark.1 < at.1 {
            self.limit(mark);
        }
    }

    fn limit(&mut self, (partition, offset): At) {
        let first = self.first_needed.entry(partition).or_insert(offset);
        *first = (*first).min(offset);
    }

    /// Up to where each partition that has `bounds` may be deleted; those with nothing to delete are left out.
    pub(super) fn up_to(&self, bounds: &Bounds) -> BTreeMap<i32, i64> {
        let limit = |partition, end: i64| match self.first_needed.get(&partition) {
            Some(&first) if self.needed => first.min(end),
            _ => end,
        };
        let all = bounds.iter().map(|(&partition, &(from, end))| (partition, from, limit(partition, end)));
        all.filter(|(_, from, to)| from < to).map(|(partition, _, to)| (partition, to)).collect()
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::message::OwnedMessage;

    use super::*;

    #[test]
    fn a_mark_is_read_back_and_nothing_else_is_one() {
        let record = |payload: Option<Vec<u8>>, headers| {
            OwnedMessage::new(payload, None, "t.dlq".into(), rdkafka::Timestamp::NotAvailable, 1, 9, headers)
        };
        let ids = [LetterId(7), LetterId(u128::MAX)];
        let mut marks = Marks::default();
        assert!(marks.note(&record(None, Some(headers("purged", &ids)))).unwrap());
        assert_eq!((marks.of(ids[0]), marks.of(ids[1]), marks.of(LetterId(8))), (Some((1, 9)), Some((1, 9)), None));
        assert!(!is_mark(&record(Some(vec![]), Some(headers("purged", &ids)))), "a letter of a mark that somebody read");
        assert!(!is_mark(&record(None, None)));
    }

    #[test]
    fn what_is_deleted_takes_no_letter_and_no_mark_that_one_needs() {
        let bounds: Bounds = [(0, (10, 20)), (1, (0, 0)), (2, (5, 9))].into();
        let (mut all, mut some, mut again) = (Deletable::default(), Deletable::default(), Deletable::default());
        all.is_marked((0, 10), (0, 12));
        all.is_marked((0, 13), (0, 12));
        assert_eq!(all.up_to(&bounds), [(0, 20), (2, 9)].into(), "nothing is left that needs a mark");
        some.is_marked((0, 10), (0, 12));
        some.stays((0, 14));
        some.stays((2, 5));
        assert_eq!(some.up_to(&bounds), [(0, 14)].into());
        again.is_marked((0, 13), (0, 12));
        again.is_marked((0, 18), (2, 8));
        again.stays((0, 14));
        assert_eq!(again.up_to(&bounds), [(0, 12), (2, 8)].into());
    }
}
