//! What is made of the messages of a replication session: changes with their numbers, and places between transactions.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::buffer::PARTITION;
use super::capture::Table;
use super::mark::{CopyAgain, Lsn, Place};
use super::server::Catalog;
use crate::batch::Payloads;
use crate::error::{Error, Kind, Result};
use crate::pgoutput::{Change, Malformed, Message, Op, Relation};
use crate::position::Span;

/// A piece is handed to the readers when it has so much, or when nothing more is there.
const PIECE_RECORDS: usize = 16_384;
const PIECE_BYTES: usize = 1 << 20;

/// Places that are remembered until they are acknowledged; beyond, every second is forgotten.
const PLACES_MAX: usize = 4096;

/// A place between two transactions, with the next offset of each table there.
#[derive(Debug, Clone)]
pub(super) struct Between {
    pub(super) lsn: Lsn,
    pub(super) offsets: Vec<i64>,
}

/// The transaction that is being received.
#[derive(Debug, Clone, Copy)]
struct Transaction {
    commit_lsn: Lsn,
    commit_us: i64,
    xid: u32,
}

/// The numbering of one session's changes.
pub(super) struct Numbering<'a> {
    tables: &'a [Table],
    catalogs: Vec<Catalog>,
    /// The next offset of each table.
    offsets: Vec<i64>,
    /// Of each table, the place before which its snapshot has all that was committed.
    from: Vec<Lsn>,
    /// The changes of each table that are not handed over yet.
    pieces: Vec<Payloads>,
    transaction: Option<Transaction>,
    /// Which table and generation a number of Postgres' is; `None`: none of ours.
    relations: HashMap<u32, Option<(usize, u32)>>,
    places: VecDeque<Between>,
    /// The rows that were copied again and have not come yet.
    copies: VecDeque<CopyAgain>,
    /// Where the last commit ends; 0 before the first.
    before_lsn: u64,
    /// Changes of ours since somebody asked last.
    received: u64,
}

impl<'a> Numbering<'a> {
    /// Begins at a place. Of each table, `catalogs` has what the messages do not say.
    pub(super) fn new(tables: &'a [Table], place: &Place, catalogs: Vec<Catalog>) -> Self {
        let of_table = |table: &Table| place.tables.get(&table.location).copied().unwrap_or_default();
        let at = Between { lsn: place.lsn, offsets: tables.iter().map(|table| of_table(table).offset).collect() };
        Self {
            tables,
            catalogs,
            pieces: at.offsets.iter().map(|&offset| empty(offset)).collect(),
            offsets: at.offsets.clone(),
            from: tables.iter().map(|table| of_table(table).from).collect(),
            copies: place.copies.iter().cloned().collect(),
            transaction: None,
            relations: HashMap::new(),
            places: VecDeque::from([at]),
            before_lsn: 0,
            received: 0,
        }
    }

    /// A transaction begins.
    pub(super) fn begin(&mut self, commit_lsn: u64, commit_us: i64, xid: u32) {
        self.transaction = Some(Transaction { commit_lsn: Lsn(commit_lsn), commit_us, xid });
    }

    /// The transaction is whole. Rows that were copied again, since it asks for them, follow.
    pub(super) fn commit(&mut self, end: Lsn) -> Result<()> {
        self.transaction = None;
        self.before_lsn = end.0;
        while let Some(copy) = self.copies.pop_front_if(|copy| copy.lsn <= end) {
            self.hand_over()?;
            if let Some(index) = self.tables.iter().position(|table| table.location == copy.table) {
                let table = &self.tables[index];
                (self.offsets[index], self.from[index]) = (copy.behind.offset, copy.behind.from);
                if table.buffer.next() < copy.behind.rows {
                    table.buffer.extend(table.spool.spans(copy.first, copy.behind.rows), copy.behind.rows);
                }
                self.pieces[index] = empty(table.buffer.next());
            }
        }
        self.stand(end.0);
        Ok(())
    }

    /// Whether the rows that a transaction which ends there asks for are copied.
    pub(super) fn has_copied(&self, end: Lsn) -> bool {
        self.copies.front().is_some_and(|copy| copy.lsn <= end)
    }

    /// Leaves the transaction as if it had not come: it will come again.
    pub(super) fn break_off(&mut self) {
        self.transaction = None;
    }

    /// Everything before `lsn` was received, if no transaction is.
    pub(super) fn stand(&mut self, lsn: u64) {
        if self.transaction.is_some() {
            return;
        }
        match self.places.back_mut() {
            Some(last) if last.lsn.0 >= lsn => {}
            Some(last) if last.offsets == self.offsets => last.lsn = Lsn(lsn),
            _ => self.places.push_back(Between { lsn: Lsn(lsn), offsets: self.offsets.clone() }),
        }
        if self.places.len() > PLACES_MAX {
            let mut index = 0;
            self.places.retain(|_| {
                index += 1;
                index % 2 == 1
            });
        }
    }

    /// Takes a message of `pgoutput` that stands at `lsn`.
    #[inline]
    pub(super) fn take(&mut self, lsn: u64, message: &[u8]) -> Result<()> {
        match Message::parse(message).map_err(malformed)? {
            Message::Row { relation, op, body } => {
                if let Some((table, generation)) = self.known(relation)? {
                    self.add(table, generation, op, lsn, body)?;
                }
            }
            Message::Truncate { relations } => {
                for relation in relations {
                    if let Some((table, generation)) = self.known(relation)? {
                        self.add(table, generation, Op::Truncate, lsn, &[])?;
                    }
                }
            }
            Message::Relation(relation) => self.describe(relation),
            Message::Other => {}
        }
        Ok(())
    }

    fn known(&self, relation: u32) -> Result<Option<(usize, u32)>> {
        self.relations.get(&relation).copied().ok_or(Malformed("is about a table that was not described")).map_err(malformed)
    }

    fn describe(&mut self, relation: Relation) {
        let is = |table: &Table| table.options.schema == relation.schema && table.options.table == relation.name;
        let Some(table) = self.tables.iter().position(is) else {
            self.relations.insert(relation.id, None);
            return;
        };
        let id = relation.id;
        let relation = self.catalogs[table].complete(relation);
        let mut known = self.tables[table].relations.write();
        if known.last().is_none_or(|last| **last != relation) {
            known.push(Arc::new(relation));
        }
        self.relations.insert(id, Some((table, known.len() as u32 - 1)));
    }

    #[inline]
    fn add(&mut self, table: usize, generation: u32, op: Op, lsn: u64, body: &[u8]) -> Result<()> {
        let Some(Transaction { commit_lsn, commit_us, xid }) = self.transaction else {
            return Err(malformed(Malformed("is a change outside of a transaction")));
        };
        // The snapshot has it already.
        if commit_lsn < self.from[table] {
            return Ok(());
        }
        let offset = self.offsets[table];
        self.offsets[table] += 1;
        self.received += 1;
        // Received before the connection broke.
        if offset < self.pieces[table].span.to {
            return Ok(());
        }
        let piece = &mut self.pieces[table];
        let before_lsn = self.before_lsn;
        Change { op, generation, lsn, commit_lsn: commit_lsn.0, before_lsn, commit_us, xid, body }.write(&mut piece.bytes);
        piece.ends.push(piece.bytes.len());
        piece.offsets.push(offset);
        piece.span.to = offset + 1;
        piece.appended_ms = commit_us / 1000;
        if piece.len() >= PIECE_RECORDS || piece.bytes.len() >= PIECE_BYTES {
            return self.hand_over();
        }
        Ok(())
    }

    /// Hands over what there is.
    pub(super) fn hand_over(&mut self) -> Result<()> {
        for (table, piece) in self.tables.iter().zip(&mut self.pieces) {
            if !piece.is_empty() {
                let next = empty(piece.span.to);
                table.buffer.push(std::mem::replace(piece, next))?;
            }
        }
        Ok(())
    }

    /// Says that each table has been received up to where its buffer ends already.
    pub(super) fn skip_received(&mut self) {
        for (table, piece) in self.tables.iter().zip(&mut self.pieces) {
            *piece = empty(table.buffer.next().max(piece.span.to));
        }
    }

    /// How many changes were received since the last call.
    pub(super) fn take_received(&mut self) -> u64 {
        std::mem::take(&mut self.received)
    }

    /// Whether no transaction is half received.
    pub(super) fn is_between(&self) -> bool {
        self.transaction.is_none()
    }

    /// The next offset of each table.
    pub(super) fn offsets(&self) -> &[i64] {
        &self.offsets
    }

    /// The newest place before which every lane is done; older ones are forgotten.
    pub(super) fn done(&mut self) -> Option<Between> {
        let acknowledged: Option<Vec<i64>> = self.tables.iter().map(|table| table.buffer.acknowledged()).collect();
        let acknowledged = acknowledged?;
        let is_done = |place: &Between| place.offsets.iter().zip(&acknowledged).all(|(offset, done)| offset <= done);
        let count = self.places.partition_point(is_done);
        // The last of them stays, as the place to count on from.
        self.places.drain(..count.saturating_sub(1));
        if count > 0 { self.places.front().cloned() } else { None }
    }
}

fn empty(at: i64) -> Payloads {
    Payloads { span: Span { partition: PARTITION, from: at, to: at }, ..Payloads::default() }
}

fn malformed(Malformed(why): Malformed) -> Error {
    Error::new(Kind::Corrupt, format!("a message of Postgres cannot be read: it {why}"))
}
