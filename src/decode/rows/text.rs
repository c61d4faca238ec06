//! Texts as views: into the payloads' own memory, or, where a string had escapes, into memory beside it.

use std::sync::Arc;

use arrow::array::{ArrayRef, ByteView, LargeStringArray, StringArray, StringViewArray, make_view};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;

/// The number of the buffer that holds the payloads.
pub(in crate::decode) const PAYLOADS: u32 = 0;
/// The number of the buffer that holds strings whose escapes were resolved.
pub(in crate::decode) const RESOLVED: u32 = 1;

/// A view that holds longer texts than this points into a buffer; shorter ones hold the text itself.
const INLINE_MAX: u32 = 12;
/// The payloads are kept as a segment's buffer if its texts use at least one byte in so many of them; otherwise the
/// texts are copied, or a segment would hold the memory of whole payloads for a few short strings.
const KEEP_RATIO: usize = 4;

/// The view of `text`, which stands at `offset` of `buffer`.
#[inline]
pub(in crate::decode) fn view(text: &[u8], buffer: u32, offset: usize) -> u128 {
    // A batch is at most `i32::MAX` bytes long: the decoder refuses larger ones.
    make_view(text, buffer, offset as u32)
}

/// The view of the text `bytes[at..at + length]` of the payloads, or `None` if it is not UTF-8 or not there.
#[inline(always)]
pub(in crate::decode) fn view_of_utf8(bytes: &[u8], at: usize, length: usize) -> Option<u128> {
    // Short texts are taken with what follows them: a copy of a length that is not known would cost more than all the rest.
    let Some(mask) = MASKS.get(length) else { return view_of_long_utf8(bytes, at, length) };
    let Some(wide) = bytes.get(at..).and_then(|rest| rest.first_chunk()) else { return view_of_long_utf8(bytes, at, length) };
    let text = u128::from_le_bytes(*wide) & mask;
    if text & NOT_ASCII != 0 {
        return view_of_long_utf8(bytes, at, length);
    }
    Some(text << 32 | length as u128)
}

/// The same of any length.
fn view_of_long_utf8(bytes: &[u8], at: usize, length: usize) -> Option<u128> {
    let text = bytes.get(at..)?.get(..length)?;
    let is_utf8 = is_ascii(text) || simdutf8::basic::from_utf8(text).is_ok();
    is_utf8.then(|| view(text, PAYLOADS, at))
}

/// Sixteen bytes at once, at last those that end the text: what stands in records is often too short for a wider step.
#[inline]
fn is_ascii(text: &[u8]) -> bool {
    let Some(last) = text.last_chunk() else { return text.is_ascii() };
    let chunks = text.as_chunks().0.iter();
    let all = chunks.fold(u128::from_ne_bytes(*last), |all, chunk| all | u128::from_ne_bytes(*chunk));
    all & NOT_ASCII == 0
}

/// The bytes of a text of each length that a view holds.
const MASKS: [u128; INLINE_MAX as usize + 1] = {
    let mut masks = [0; INLINE_MAX as usize + 1];
    let mut length = 0;
    while length < masks.len() {
        masks[length] = (1 << (8 * length)) - 1;
        length += 1;
    }
    masks
};

const NOT_ASCII: u128 = u128::from_ne_bytes([0x80; 16]);

/// The two buffers that the views of one batch point into.
pub(in crate::decode) struct Texts {
    payloads: Buffer,
    resolved: Buffer,
    keep: bool,
}

impl Texts {
    /// Decides, from all views of a batch, whether its payloads stay in memory.
    pub(in crate::decode) fn new<'a>(
        payloads: Vec<u8>,
        resolved: Vec<u8>,
        columns: impl Iterator<Item = &'a Vec<u128>>,
    ) -> Self {
        let used: usize = columns.flatten().map(|&view| ByteView::from(view)).filter(points_into_payloads).map(size).sum();
        let keep = used > 0 && used >= payloads.len() / KEEP_RATIO;
        Self { payloads: Buffer::from_vec(payloads), resolved: Buffer::from_vec(resolved), keep }
    }

    /// The array of these views, which are views of valid UTF-8.
    pub(in crate::decode) fn array(
        &self,
        data_type: &DataType,
        views: Vec<u128>,
        nulls: Option<NullBuffer>,
    ) -> Result<ArrayRef, ArrowError> {
        match data_type {
            DataType::Utf8 => {
                let (text, ends) = self.run_together(&views);
                let ends = ScalarBuffer::from(ends.into_iter().map(|end| end as i32).collect::<Vec<_>>());
                Ok(Arc::new(StringArray::try_new(OffsetBuffer::new(ends), text, nulls)?))
            }
            DataType::LargeUtf8 => {
                let (text, ends) = self.run_together(&views);
                let ends = ScalarBuffer::from(ends.into_iter().map(|end| end as i64).collect::<Vec<_>>());
                Ok(Arc::new(LargeStringArray::try_new(OffsetBuffer::new(ends), text, nulls)?))
            }
            _ => Ok(Arc::new(self.views(views, nulls))),
        }
    }

    fn views(&self, mut views: Vec<u128>, nulls: Option<NullBuffer>) -> StringViewArray {
        let long = || views.iter().map(|&view| ByteView::from(view)).filter(|view| view.length > INLINE_MAX);
        let buffers = if long().next().is_none() {
            Vec::new()
        } else if self.keep {
            let resolved = long().any(|view| view.buffer_index == RESOLVED);
            let both = [self.payloads.clone(), self.resolved.clone()];
            both.into_iter().take(if resolved { 2 } else { 1 }).collect()
        } else {
            vec![self.copy(&mut views)]
        };
        // SAFETY: every view was made by `view` from a slice that lies at that offset of that buffer: in `payloads`,
        // which has not changed since, or in `resolved`, which only grew; or `copy` has just written it. Every slice is
        // valid UTF-8: it was cut at ASCII bytes out of a payload that `simdutf8` or `str::from_utf8` found valid, or
        // comes from a `String`; or, of Postgres' and Avro's texts, each was found ASCII or by `simdutf8` valid. Checking that again would cost as much as finding the strings did.
        unsafe { StringViewArray::new_unchecked(ScalarBuffer::from(views), buffers, nulls) }
    }

    /// Copies the long texts into a buffer of their own and turns the views to it.
    fn copy(&self, views: &mut [u128]) -> Buffer {
        let long = views.iter().map(|&view| ByteView::from(view)).filter(|view| view.length > INLINE_MAX);
        let mut texts = Vec::with_capacity(long.map(size).sum());
        for view in views {
            let mut moved = ByteView::from(*view);
            if moved.length > INLINE_MAX {
                let offset = texts.len() as u32;
                texts.extend_from_slice(self.pointed(moved));
                (moved.buffer_index, moved.offset) = (0, offset);
                *view = moved.as_u128();
            }
        }
        Buffer::from_vec(texts)
    }

    /// All texts one after the other, and where each begins, then where the last ends.
    fn run_together(&self, views: &[u128]) -> (Buffer, Vec<usize>) {
        let mut texts = Vec::new();
        let mut ends = Vec::with_capacity(views.len() + 1);
        ends.push(0);
        for view in views {
            let (bytes, view) = (view.to_le_bytes(), ByteView::from(*view));
            texts.extend_from_slice(match view.length {
                length @ 0..=INLINE_MAX => &bytes[4..4 + length as usize],
                _ => self.pointed(view),
            });
            ends.push(texts.len());
        }
        (Buffer::from_vec(texts), ends)
    }

    fn pointed(&self, view: ByteView) -> &[u8] {
        let buffer = if view.buffer_index == PAYLOADS { &self.payloads } else { &self.resolved };
        &buffer[view.offset as usize..][..view.length as usize]
    }
}

fn points_into_payloads(view: &ByteView) -> bool {
    view.length > INLINE_MAX && view.buffer_index == PAYLOADS
}

fn size(view: ByteView) -> usize {
    view.length as usize
}
