//! A change as it lies in memory, between the thread that receives it and the one that decodes it.

use super::{Bytes, Malformed, Tuple};

/// What happened to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// It was there when the snapshot was taken.
    Read,
    /// It is new.
    Insert,
    /// It has other values.
    Update,
    /// It is gone.
    Delete,
    /// The whole table was emptied.
    Truncate,
}

impl Op {
    /// The letter in `_op`, which is Debezium's: `r`, `c` (created), `u`, `d`, `t`.
    pub fn letter(self) -> &'static str {
        match self {
            Op::Read => "r",
            Op::Insert => "c",
            Op::Update => "u",
            Op::Delete => "d",
            Op::Truncate => "t",
        }
    }

    fn of(letter: u8) -> Option<Self> {
        [Op::Read, Op::Insert, Op::Update, Op::Delete, Op::Truncate].into_iter().find(|op| op.letter().as_bytes() == [letter])
    }
}

/// A change of one row, with the transaction that it belongs to. `body` is the message after the table's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change<'a> {
    /// What happened.
    pub op: Op,
    /// Which of the table's [`super::Relation`]s says what the row looks like, counted from 0.
    pub generation: u32,
    /// Where the change stands in the WAL.
    pub lsn: u64,
    /// Where its transaction's commit stands.
    pub commit_lsn: u64,
    /// Where the commit before that ends; 0 where that is not known.
    pub before_lsn: u64,
    /// When the commit was, µs since 1970.
    pub commit_us: i64,
    /// The transaction's number.
    pub xid: u32,
    /// The rows: see [`Change::rows`].
    pub body: &'a [u8],
}

/// The rows of a change.
pub struct Rows<'a> {
    /// Its old values: all of them where the replica identity is the whole row, else those of the key, if anything.
    pub old: Option<Tuple<'a>>,
    /// Whether `old` is the whole row.
    pub old_is_whole: bool,
    /// Its new values.
    pub new: Option<Tuple<'a>>,
}

impl<'a> Change<'a> {
    /// Appends the change to `to`: a header of 41 bytes, then the body.
    pub fn write(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(self.op.letter().as_bytes());
        to.extend_from_slice(&self.generation.to_be_bytes());
        to.extend_from_slice(&self.lsn.to_be_bytes());
        to.extend_from_slice(&self.commit_lsn.to_be_bytes());
        to.extend_from_slice(&self.before_lsn.to_be_bytes());
        to.extend_from_slice(&self.commit_us.to_be_bytes());
        to.extend_from_slice(&self.xid.to_be_bytes());
        to.extend_from_slice(self.body);
    }

    /// Reads what [`Change::write`] wrote.
    #[inline]
    pub fn read(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut bytes = Bytes(bytes);
        Ok(Self {
            op: Op::of(bytes.u8()?).ok_or(Malformed("is of an unknown kind"))?,
            generation: bytes.u32()?,
            lsn: bytes.array().map(u64::from_be_bytes)?,
            commit_lsn: bytes.array().map(u64::from_be_bytes)?,
            before_lsn: bytes.array().map(u64::from_be_bytes)?,
            commit_us: bytes.array().map(i64::from_be_bytes)?,
            xid: bytes.u32()?,
            body: bytes.0,
        })
    }

    /// The rows in the body: of an update maybe the old and the new, of a delete the old, of the others the new; of a truncate none.
    #[inline]
    pub fn rows(&self) -> Result<Rows<'a>, Malformed> {
        let mut rows = Rows { old: None, old_is_whole: false, new: None };
        let mut bytes = Bytes(self.body);
        if self.op == Op::Truncate {
            return Ok(rows);
        }
        let mut kind = bytes.u8()?;
        if matches!(kind, b'K' | b'O') {
            rows.old = Some(Tuple::new(bytes.0)?);
            rows.old_is_whole = kind == b'O';
            if self.op == Op::Delete {
                return Ok(rows);
            }
            let mut walked = Tuple::new(bytes.0)?;
            walked.by_ref().try_for_each(|value| value.map(|_| ()))?;
            bytes = Bytes(walked.rest());
            kind = bytes.u8()?;
        }
        match kind {
            b'N' if self.op != Op::Delete => {
                rows.new = Some(Tuple::new(bytes.0)?);
                Ok(rows)
            }
            _ => Err(Malformed("has a row of an unknown kind")),
        }
    }
}
