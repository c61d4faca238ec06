//! A board: one sorted set, written whole or by its difference, each in one script that checks the fence.

use std::time::Duration;

use arrow::array::{Array, RecordBatch};
use hashbrown::HashMap;
use redis::Script;

use super::connection::{Answer, Call, Connection};
use crate::batch::Output;
use crate::error::{Kind, Result};
use crate::failpoint;
use crate::sink::{Writer, cells};

/// Members in one script: more would hold up everybody else on the server for longer than some 10 ms.
const PART_MEMBERS: usize = 5_000;
/// Members of a board: a sorted set of this size takes 100 MB there and here. Use LIMIT.
const MEMBERS_MAX: usize = 1_000_000;
/// How often staging begins anew when Redis loses what was staged (evicted, deleted).
const STAGINGS_MAX: usize = 5;

/// What a member costs here: its entry, its text, and the allocator's share.
const MEMBER_BYTES: usize = 96;

type Members = HashMap<Box<str>, f64>;

/// The sorted set of one table, and what of the open epoch it has taken.
pub(super) struct Board {
    pub(super) member: usize,
    pub(super) score: usize,
    pub(super) key: String,
    pub(super) fence: String,
    pub(super) ttl: Duration,
    scripts: Scripts,
    pending: Option<Pending>,
    /// The epoch that this process applied last, and the board that it left; `None` when nothing is known for certain.
    last: Option<(u64, Members)>,
    /// Rows of the open epoch without a member or a score.
    pub(super) skipped: u64,
}

struct Scripts {
    difference: Script,
    stage: Script,
}

enum Pending {
    Whole(Members),
    /// The new score of a member, or `None` when it leaves.
    Changes(HashMap<Box<str>, Option<f64>>),
}

/// What one script writes: members that leave, and members with their scores.
#[derive(Default)]
struct Change<'a> {
    removed: Vec<&'a str>,
    set: Vec<(&'a str, f64)>,
}

impl Board {
    pub(super) fn new(key: String, fence: String, member: usize, score: usize, ttl: Duration) -> Self {
        let scripts = Scripts {
            difference: super::script(include_str!("lua/difference.lua")),
            stage: super::script(include_str!("lua/stage.lua")),
        };
        Self { member, score, key, fence, ttl, scripts, pending: None, last: None, skipped: 0 }
    }

    /// Takes a part of the open epoch. A whole board replaces what came before it; of a member that comes twice the last counts.
    pub(super) fn write(&mut self, output: Output) -> Result<()> {
        let (rows, deletes) = match output {
            Output::Board(rows) => {
                let mut members = Members::with_capacity(rows.num_rows());
                self.each(&rows, |member, score| {
                    members.insert(member.into(), score);
                })?;
                self.pending = Some(Pending::Whole(members));
                return Ok(());
            }
            Output::Rows { rows, .. } => (rows, None),
            Output::Changes { upserts, deletes } => (upserts, Some(deletes)),
        };
        let mut pending = self.pending.take().unwrap_or_else(|| Pending::Changes(HashMap::new()));
        if let Some(deletes) = deletes {
            for member in cells::texts(deletes.column(self.member))?.iter().flatten() {
                pending.set(member, None);
            }
        }
        self.each(&rows, |member, score| pending.set(member, Some(score)))?;
        self.pending = Some(pending);
        Ok(())
    }

    /// How many members the open epoch has taken.
    pub(super) fn pending_members(&self) -> usize {
        match &self.pending {
            None => 0,
            Some(Pending::Whole(members)) => members.len(),
            Some(Pending::Changes(changes)) => changes.len(),
        }
    }

    /// Memory held: what was taken, and the board that was written last.
    pub(super) fn memory_bytes(&self) -> usize {
        let last = self.last.as_ref().map_or(0, |(_, members)| members.len());
        (self.pending_members() + last) * MEMBER_BYTES
    }

    /// Forgets what the open epoch has taken.
    pub(super) fn clear(&mut self) {
        (self.pending, self.skipped) = (None, 0);
    }

    /// Makes `epoch` visible and says how many members changed by it.
    pub(super) async fn apply(&mut self, connection: &mut Connection, writer: &Writer, epoch: u64) -> Result<u64> {
        let last = self.last.take();
        match self.pending.take() {
            None => {
                self.last = last;
                Ok(0)
            }
            Some(Pending::Whole(members)) => {
                if members.len() > MEMBERS_MAX {
                    let what = format!("the board has {} members; at most {MEMBERS_MAX} are written: use LIMIT", members.len());
                    return Err(connection.error(Kind::Full, what));
                }
                let changed = self.apply_whole(connection, writer, epoch, &members, last).await?;
                self.last = Some((epoch, members));
                Ok(changed)
            }
            Some(Pending::Changes(changes)) => {
                let change = Change {
                    removed: changes.iter().filter(|(_, score)| score.is_none()).map(|(member, _)| &**member).collect(),
                    set: changes.iter().filter_map(|(member, score)| Some((&**member, (*score)?))).collect(),
                };
                if change.len() > PART_MEMBERS {
                    self.stage(connection, writer, epoch, "copy", &change).await?;
                } else {
                    self.difference(connection, writer, epoch, None, &change).await?;
                }
                Ok(change.len() as u64)
            }
        }
    }

    async fn apply_whole(
        &self,
        connection: &mut Connection,
        writer: &Writer,
        epoch: u64,
        members: &Members,
        last: Option<(u64, Members)>,
    ) -> Result<u64> {
        if let Some((at, last)) = &last {
            let change = Change::between(last, members);
            if change.len() <= PART_MEMBERS
                && self.difference(connection, writer, epoch, Some(*at), &change).await? != Answer::Whole
            {
                return Ok(change.len() as u64);
            }
        }
        let all = Change { removed: Vec::new(), set: members.iter().map(|(member, &score)| (&**member, score)).collect() };
        self.stage(connection, writer, epoch, "new", &all).await?;
        Ok(members.len() as u64)
    }

    async fn difference(
        &self,
        connection: &mut Connection,
        writer: &Writer,
        epoch: u64,
        at: Option<u64>,
        change: &Change<'_>,
    ) -> Result<Answer> {
        let mut call = Call::new(&self.scripts.difference, &[&self.key, &self.fence, &self.key], writer, epoch, self.ttl);
        match at {
            Some(at) => call.arg(at),
            None => call.arg("*"),
        };
        change.write(&mut call);
        connection.run(&call).await
    }

    /// Stages in parts, and swaps with the last one. The staging key is this epoch's own, so that no other process, and no late
    /// part of an earlier epoch, can mix into it; what is left behind expires.
    async fn stage(
        &self,
        connection: &mut Connection,
        writer: &Writer,
        epoch: u64,
        begin: &str,
        change: &Change<'_>,
    ) -> Result<()> {
        let staging = super::slot::beside(&self.key, &format!("s:{}:{}:{epoch}", writer.lineage, writer.incarnation));
        let parts = change.parts();
        'stagings: for _ in 0..STAGINGS_MAX {
            let mut staged = 0;
            for (index, part) in parts.iter().enumerate() {
                // A staging key that is left behind must go even if the board stays for ever.
                let is_last = index + 1 == parts.len();
                let ttl = if is_last { self.ttl } else { self.ttl.max(Duration::from_secs(60)) };
                let mut call = Call::new(&self.scripts.stage, &[&self.key, &self.fence, &staging], writer, epoch, ttl);
                call.arg(if index == 0 { begin } else { "more" }).arg(staged).arg(u8::from(is_last));
                part.write(&mut call);
                if is_last {
                    // What came before is staged; this swaps it in.
                    failpoint::hit(&writer.lane, "redis.staged");
                }
                match connection.run(&call).await? {
                    Answer::Staged(members) => staged = members,
                    Answer::Again => continue 'stagings,
                    _ => return Ok(()),
                }
            }
        }
        Err(connection
            .error(Kind::Unreachable, "Redis loses what is staged before it can be swapped in; look at its memory limit"))
    }

    /// Calls `take` with each member and score; rows without either are counted and left out.
    fn each(&mut self, rows: &RecordBatch, mut take: impl FnMut(&str, f64)) -> Result<()> {
        let members = cells::texts(rows.column(self.member))?;
        let scores = cells::scores(rows.column(self.score))?;
        for row in 0..rows.num_rows() {
            match cells::text(&members, row) {
                Some(member) if scores.is_valid(row) && !scores.value(row).is_nan() => take(member, scores.value(row)),
                _ => self.skipped += 1,
            }
        }
        Ok(())
    }
}

impl Pending {
    fn set(&mut self, member: &str, score: Option<f64>) {
        match (self, score) {
            (Pending::Changes(changes), score) => {
                changes.insert(member.into(), score);
            }
            (Pending::Whole(members), Some(score)) => {
                members.insert(member.into(), score);
            }
            (Pending::Whole(members), None) => {
                members.remove(member);
            }
        }
    }
}

impl<'a> Change<'a> {
    /// What makes `new` of `old`.
    fn between(old: &'a Members, new: &'a Members) -> Self {
        Self {
            removed: old.keys().map(|member| &**member).filter(|member| !new.contains_key(*member)).collect(),
            set: new
                .iter()
                .filter(|(member, score)| old.get(*member) != Some(score))
                .map(|(member, &score)| (&**member, score))
                .collect(),
        }
    }

    fn len(&self) -> usize {
        self.removed.len() + self.set.len()
    }

    /// The same in parts of a bounded size; at least one.
    fn parts(&self) -> Vec<Change<'a>> {
        let mut parts: Vec<Change<'a>> =
            self.set.chunks(PART_MEMBERS).map(|set| Change { removed: Vec::new(), set: set.to_vec() }).collect();
        parts.extend(self.removed.chunks(PART_MEMBERS).map(|removed| Change { removed: removed.to_vec(), set: Vec::new() }));
        if parts.is_empty() {
            parts.push(Change::default());
        }
        parts
    }

    fn write(&self, call: &mut Call<'_>) {
        call.arg(self.removed.len()).arg(&self.removed);
        for (member, score) in &self.set {
            call.arg(*score).arg(*member);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(items: &[(&str, f64)]) -> Members {
        items.iter().map(|(member, score)| ((*member).into(), *score)).collect()
    }

    #[test]
    fn a_difference_holds_what_came_changed_and_left() {
        let old = members(&[("a", 1.0), ("b", 2.0), ("c", 3.0)]);
        let new = members(&[("a", 1.0), ("b", 5.0), ("d", 4.0)]);
        let mut change = Change::between(&old, &new);
        change.set.sort_by(|a, b| a.0.cmp(b.0));
        assert_eq!((change.removed, change.set), (vec!["c"], vec![("b", 5.0), ("d", 4.0)]));
        assert_eq!(Change::between(&new, &new).len(), 0);
        assert_eq!(Change::default().parts().len(), 1);
    }
}
