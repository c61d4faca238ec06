//! Rows on the terminal, for development only: nothing is remembered, so a crash may print an epoch twice.

use arrow::util::pretty::pretty_format_batches;
use async_trait::async_trait;

use super::{Applied, Sink, Staged, Writer};
use crate::batch::Output;
use crate::error::Result;

/// Prints each epoch as a table.
#[derive(Debug, Default)]
pub struct PrintSink {
    written: Vec<Output>,
}

#[async_trait]
impl Sink for PrintSink {
    fn stages(&self) -> bool {
        false
    }

    async fn open(&mut self, _: &Writer) -> Result<Option<u64>> {
        Ok(None)
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
        let mut count = 0;
        for output in self.written.drain(..) {
            count += output.num_rows() as u64;
            let (what, rows) = match output {
                Output::Rows { rows, .. } => ("rows", vec![rows]),
                Output::Board(rows) => ("board", vec![rows]),
                Output::Changes { upserts, deletes } => ("written, then deleted", vec![upserts, deletes]),
            };
            for rows in rows.iter().filter(|rows| rows.num_rows() > 0) {
                println!("epoch {epoch}: {what}\n{}", pretty_format_batches(std::slice::from_ref(rows))?);
            }
        }
        Ok(Applied { rows: count, ..Applied::default() })
    }

    async fn committed(&mut self, _: u64, _: &[Staged]) -> Result<()> {
        Ok(())
    }
}
