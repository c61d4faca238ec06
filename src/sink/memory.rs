//! Sinks in memory: one for tests and the demo, and a wrapper that shows what a board is to our own page.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use async_trait::async_trait;
use parking_lot::Mutex;

use super::{Applied, Sink, Staged, Writer};
use crate::batch::Output;
use crate::error::Result;

/// Everything that was made visible, in order. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct MemoryTable(Arc<Mutex<Vec<(u64, Output)>>>);

impl MemoryTable {
    /// The epochs' outputs so far.
    pub fn outputs(&self) -> Vec<(u64, Output)> {
        self.0.lock().clone()
    }

    /// How many outputs there are.
    pub fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The memory table of each sink, by name; made at the first call. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct MemoryTables(Arc<Mutex<BTreeMap<String, MemoryTable>>>);

impl MemoryTables {
    /// The table of the sink `name`.
    pub fn of(&self, name: &str) -> MemoryTable {
        self.0.lock().entry(name.to_string()).or_default().clone()
    }
}

/// A sink over a [`MemoryTable`]; it remembers only what is visible, so that an epoch can be redone.
pub struct MemorySink {
    table: MemoryTable,
    keep: bool,
    written: Vec<Output>,
}

impl MemorySink {
    /// A sink that keeps all outputs (tests).
    pub fn new(table: MemoryTable) -> Self {
        Self { table, keep: true, written: Vec::new() }
    }

    /// A sink that forgets what it takes (the demo, which shows boards by [`Watched`]).
    pub fn forgetful() -> Self {
        Self { table: MemoryTable::default(), keep: false, written: Vec::new() }
    }
}

#[async_trait]
impl Sink for MemorySink {
    fn stages(&self) -> bool {
        false
    }

    async fn open(&mut self, _: &Writer) -> Result<Option<u64>> {
        Ok(self.table.0.lock().last().map(|(epoch, _)| *epoch))
    }

    async fn discard(&mut self, _: &[Staged]) -> Result<()> {
        Ok(())
    }

    async fn write(&mut self, _: u64, output: Output) -> Result<()> {
        self.written.push(output);
        Ok(())
    }

    async fn seal(&mut self, _: u64) -> Result<Vec<Staged>> {
        Ok(Vec::new())
    }

    async fn apply(&mut self, epoch: u64, _: &[Staged]) -> Result<Applied> {
        let rows = self.written.iter().map(|output| output.num_rows() as u64).sum();
        let written = std::mem::take(&mut self.written);
        let mut table = self.table.0.lock();
        if self.keep {
            table.retain(|(there, _)| *there != epoch);
            table.extend(written.into_iter().map(|output| (epoch, output)));
        }
        Ok(Applied { rows, ..Applied::default() })
    }

    async fn committed(&mut self, _: u64, _: &[Staged]) -> Result<()> {
        Ok(())
    }
}

/// A leaderboard as pages show it: members with their scores, the leader first.
pub type Board = Vec<(String, f64)>;

/// The newest board of each table. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Boards(Arc<Mutex<BTreeMap<String, Board>>>);

// More than a page shows is not kept.
const SHOWN_MAX: usize = 100;

impl Boards {
    /// A copy of all boards.
    pub fn all(&self) -> BTreeMap<String, Board> {
        self.0.lock().clone()
    }
}

/// Another sink, and its boards shown on the way.
pub struct Watched {
    inner: Box<dyn Sink>,
    boards: Boards,
    name: String,
    member: usize,
    score: usize,
    next: Option<Board>,
}

impl Watched {
    /// Shows the boards of `inner` under `name`; `member` and `score` are the columns.
    pub fn new(inner: Box<dyn Sink>, boards: Boards, name: &str, member: usize, score: usize) -> Self {
        Self { inner, boards, name: name.to_string(), member, score, next: None }
    }

    fn board(&self, rows: &RecordBatch) -> Result<Board> {
        let members = cast(rows.column(self.member), &DataType::Utf8)?;
        let scores = cast(rows.column(self.score), &DataType::Float64)?;
        let (members, scores) = (members.as_string::<i32>(), scores.as_primitive::<Float64Type>());
        let pair = |row: usize| (members.value(row).to_string(), scores.value(row));
        let mut board: Board = (0..rows.num_rows()).filter(|&row| scores.is_valid(row)).map(pair).collect();
        board.sort_by(|left, right| right.1.total_cmp(&left.1).then_with(|| right.0.cmp(&left.0)));
        board.truncate(SHOWN_MAX);
        Ok(board)
    }
}

#[async_trait]
impl Sink for Watched {
    fn stages(&self) -> bool {
        self.inner.stages()
    }

    fn goes_on(&mut self) {
        self.inner.goes_on();
    }

    async fn open(&mut self, writer: &Writer) -> Result<Option<u64>> {
        self.inner.open(writer).await
    }

    async fn discard(&mut self, keep: &[Staged]) -> Result<()> {
        self.inner.discard(keep).await
    }

    async fn write(&mut self, epoch: u64, output: Output) -> Result<()> {
        if let Output::Board(rows) = &output {
            self.next = Some(self.board(rows)?);
        }
        self.inner.write(epoch, output).await
    }

    fn written_bytes(&self) -> u64 {
        self.inner.written_bytes()
    }

    async fn seal(&mut self, epoch: u64) -> Result<Vec<Staged>> {
        self.inner.seal(epoch).await
    }

    async fn apply(&mut self, epoch: u64, staged: &[Staged]) -> Result<Applied> {
        let applied = self.inner.apply(epoch, staged).await?;
        if let Some(board) = self.next.take() {
            self.boards.0.lock().insert(self.name.clone(), board);
        }
        Ok(applied)
    }

    async fn committed(&mut self, epoch: u64, staged: &[Staged]) -> Result<()> {
        self.inner.committed(epoch, staged).await
    }

    async fn caught_up(&mut self) -> Result<()> {
        self.inner.caught_up().await
    }
}
