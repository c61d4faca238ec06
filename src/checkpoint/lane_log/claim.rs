//! How a process takes a lane's log over, also from one that is at work.

use std::sync::Arc;

use futures::future::try_join_all;

use super::LaneLog;
use crate::checkpoint::CheckpointStore;
use crate::checkpoint::read::{self, record_name};
use crate::checkpoint::record::{Entry, Handover, Step};
use crate::checkpoint::recover::{Needs, Recovered, recover};
use crate::clock::Clock;
use crate::error::{Error, Kind, Result};
use crate::sink::Writer;

/// How often a claim is tried against a process that is at work: it writes a record in a few milliseconds at best.
const CLAIM_TRIES: usize = 300;
/// How often the end of such a process's log is looked at for its next record, and how many records each look asks for at once.
const END_LOOKS: usize = 16;
const LOOK_AHEAD: usize = 3;

impl LaneLog {
    /// Reads the log of `lane` and appends a claim to it: whoever drove it before loses its next record. `records_kept` old
    /// records stay when a purge could remove them. `Err(Corrupt)` when it is not fit to go on from; then nothing was claimed.
    pub async fn claim(
        store: Arc<dyn CheckpointStore>,
        lineage: &str,
        lane: &str,
        clock: &Clock,
        needs: Needs,
        records_kept: u64,
    ) -> Result<(Self, Recovered)> {
        Self::claim_again(store, lineage, lane, clock, needs, records_kept, 0).await
    }

    /// The same for a process that has claimed the lane before, as incarnation `mine` (0: not yet), and recovers from an error:
    /// `Err(Fenced)` when another process has claimed it since. Only a start takes a lane over.
    pub async fn claim_again(
        store: Arc<dyn CheckpointStore>,
        lineage: &str,
        lane: &str,
        clock: &Clock,
        needs: Needs,
        records_kept: u64,
        mine: u64,
    ) -> Result<(Self, Recovered)> {
        let at_ms = clock.now_ms();
        let claim = |_before: u64| Entry::Claim { at_ms };
        Self::take(store, lineage, lane, needs, records_kept, (mine, 0), claim).await
    }

    /// Claims the log, as an incarnation above `least`, with the entry that `make` makes of the claim before: a claim, or the first
    /// step of a handover.
    pub(in crate::checkpoint) async fn take(
        store: Arc<dyn CheckpointStore>,
        lineage: &str,
        lane: &str,
        needs: Needs,
        records_kept: u64,
        (mine, least): (u64, u64),
        make: impl Fn(u64) -> Entry,
    ) -> Result<(Self, Recovered)> {
        let mut recovered = recover(store.as_ref(), lineage, lane, needs).await?;
        if let Some(handover) = &recovered.handover {
            return Err(is_handed_over(lane, handover));
        }
        if mine > 0 && recovered.incarnation > mine {
            return Err(taken_over(lane));
        }
        let mut log = Self::at(Arc::clone(&store), &recovered, lane, records_kept);
        log.writer.incarnation = recovered.incarnation.max(least) + 1;
        if log.take_over(lineage, mine, recovered.incarnation, make).await? {
            recovered = recover(store.as_ref(), lineage, lane, needs).await?;
        }
        if recovered.next < log.next - 1 {
            return Err(lags(lane, log.next - 1));
        }
        log.stand_at(&recovered);
        Ok((log, recovered))
    }

    /// Appends the claim. Where another process is at work its newest records are read, and the claim comes after them; says
    /// whether there were any.
    async fn take_over(&mut self, lineage: &str, mine: u64, mut before: u64, make: impl Fn(u64) -> Entry) -> Result<bool> {
        let first = self.next;
        for _ in 0..CLAIM_TRIES {
            if self.try_append(vec![make(before)]).await? {
                return Ok(self.next > first + 1);
            }
            if mine > 0 {
                return Err(self.fenced());
            }
            before = self.go_to_end(lineage).await?;
        }
        Err(self.fenced())
    }

    /// Moves behind the last record, and gives its incarnation. Its number is found by steps that double while they hit a record
    /// (galloping search: Bentley and Yao, 1976), since who reads every record of a process that writes as fast may never meet its last
    /// one. Then its next record is waited for: a claim that is sent as soon as that is seen comes first if the lane takes a moment
    /// before the one after it, and one sent at any other time comes too late where a look takes as long as a record.
    async fn go_to_end(&mut self, lineage: &str) -> Result<u64> {
        let mut step = 1;
        while self.is_there(self.next + step - 1).await? {
            (self.next, step) = (self.next + step, step * 2);
        }
        while step > 1 {
            step /= 2;
            self.next += if self.is_there(self.next + step - 1).await? { step } else { 0 };
        }
        let mut newest = None;
        for look in 0..END_LOOKS {
            let (seen, last) = self.look_ahead().await?;
            self.next += seen as u64;
            newest = last.or(newest);
            if look > 0 && (1..LOOK_AHEAD).contains(&seen) {
                break;
            }
        }
        // After a claim nobody writes under an older one, so the last record has the greatest incarnation.
        let Writer { lineage: own, lane, incarnation } = &mut self.writer;
        let (store, number) = (self.store.as_ref(), self.next - 1);
        let last = match newest {
            Some(bytes) => read::record_of(store, lineage, lane, number, &bytes).await?,
            None => read::record(store, lineage, lane, number).await?,
        };
        if let Some(handover) = last.handover().filter(|handover| handover.is_open()) {
            return Err(is_handed_over(lane, handover));
        }
        *incarnation = (*incarnation).max(last.incarnation + 1);
        *own = last.lineage;
        Ok(last.incarnation)
    }

    async fn is_there(&self, number: u64) -> Result<bool> {
        Ok(self.store.read(&record_name(&self.writer.lane, number)).await?.is_some())
    }

    /// How many of the next records are there, and the bytes of the last of them.
    async fn look_ahead(&self) -> Result<(usize, Option<Vec<u8>>)> {
        let names: Vec<String> = (self.next..).take(LOOK_AHEAD).map(|number| record_name(&self.writer.lane, number)).collect();
        let found = try_join_all(names.iter().map(|name| self.store.read(name))).await?;
        let there: Vec<Vec<u8>> = found.into_iter().map_while(|bytes| bytes).collect();
        Ok((there.len(), there.into_iter().last()))
    }
}

/// A lane that stands still while a backfill takes it over may be claimed by nobody.
fn is_handed_over(lane: &str, handover: &Handover) -> Error {
    let advice = match handover.step {
        Step::Stop => "; if that has ended too soon, 'falaj backfill' finishes it and 'falaj backfill --cancel' gives it up",
        _ => "; if that has ended too soon, 'falaj backfill' finishes it",
    };
    let text = format!("lane '{lane}' is being handed over to the result of a backfill ({}){advice}", handover.lineage);
    Error::new(Kind::Unreachable, text)
}

/// What a store does not list may be the very record that says where the lane stands.
pub(in crate::checkpoint) fn lags(lane: &str, number: u64) -> Error {
    let text =
        format!("the checkpoint's store does not list record {number} of lane '{lane}' yet, which is there; it is tried again");
    Error::new(Kind::Unreachable, text)
}

pub(super) fn taken_over(lane: &str) -> Error {
    let text = format!("another process has claimed lane '{lane}' while this one waited; this one stops");
    Error::new(Kind::Fenced, text)
}
