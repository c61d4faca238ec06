//! Rows of records that Redis has no place for: each becomes a dead letter. (Rows of windows come from no single record; they are left
//! out and counted.)

use arrow::array::Array;

use super::Place;
use crate::batch::{DeadLetter, Output, Stage};
use crate::error::Result;
use crate::sink::cells;

/// The letters of `output`, which is for `place`.
pub(super) fn letters_of(output: &Output, place: &Place) -> Result<Vec<DeadLetter>> {
    let Output::Rows { rows, ids } = output else { return Ok(Vec::new()) };
    let (key, scores) = match place {
        Place::Board(board) => (board.member, Some(cells::scores(rows.column(board.score))?)),
        Place::Rows(hashes) => (hashes.key, None),
    };
    let keys = cells::texts(rows.column(key))?;
    let mut letters = Vec::new();
    for row in 0..rows.num_rows() {
        let (code, why) = if keys.is_null(row) {
            ("null_key", "the key is NULL, so the row has no place in Redis")
        } else if scores.as_ref().is_some_and(|scores| scores.is_null(row) || scores.value(row).is_nan()) {
            ("no_score", "the score is NULL or NaN, so the row has no place on the board")
        } else {
            continue;
        };
        if let Some((partition, offset)) = ids.origin(row) {
            let message = format!("{why}; leave such rows out by a WHERE");
            letters.push(DeadLetter { partition, offset, stage: Stage::Sink, code, message, schema_id: None });
        }
    }
    Ok(letters)
}
