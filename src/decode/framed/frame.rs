//! Where a record says by which schema it is written: before its payload, or in its header `__value_schema_id`.
//!
//! | bytes | who writes them |
//! |---|---|
//! | `00`, an id in four bytes | Confluent's serializers, and Apicurio's |
//! | `00`, an id in eight bytes | Apicurio's, where they are told so: the option `registry.id_bytes` |
//! | `01`, a GUID in sixteen bytes | Confluent's, since version 8; mostly in the header |
//!
//! Numbers have their high byte first. In Protobuf the place of the message follows, wherever the id stands.

use std::iter::Peekable;
use std::slice::Iter;

use super::Fault;
use crate::batch::Payloads;
use crate::headers::{Known, RecordHeader};
use crate::registry::id::SchemaId;

/// What stands before a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub(super) id: SchemaId,
    /// How many bytes of the payload it takes.
    pub(super) bytes: usize,
    /// What follows the id in the header, if it stands there.
    pub(super) rest: Option<&'a [u8]>,
}

/// Reads the frames of a batch, in the order of its records.
pub(super) struct Frames<'a> {
    headers: Peekable<Iter<'a, RecordHeader>>,
    id_bytes: usize,
}

impl<'a> Frames<'a> {
    pub(super) fn new(headers: &'a [RecordHeader], id_bytes: usize) -> Self {
        Self { headers: headers.iter().peekable(), id_bytes }
    }

    /// The frame of the record with this index, which is greater than the one before.
    #[inline]
    pub(super) fn next(&mut self, index: usize, payload: &[u8]) -> Result<Frame<'a>, Fault> {
        match payload {
            // As almost all are.
            [0, a, b, c, d, ..] if self.id_bytes == 4 && self.headers.peek().is_none() => {
                Ok(Frame { id: SchemaId::Id(u32::from_be_bytes([*a, *b, *c, *d]).into()), bytes: 5, rest: None })
            }
            _ => self.any(index, payload),
        }
    }

    #[inline(never)]
    fn any(&mut self, index: usize, payload: &[u8]) -> Result<Frame<'a>, Fault> {
        if let Some(header) = self.header(index) {
            // Nobody writes eight bytes there.
            let (id, used) =
                id(header, 4).map_err(|what| Fault::decode("framing", format!("its header __value_schema_id {what}")))?;
            return Ok(Frame { id, bytes: 0, rest: Some(&header[used..]) });
        }
        let empty = || Fault::decode("empty", "the payload is empty; it must begin with a schema's id");
        let (id, bytes) = id(payload, self.id_bytes).map_err(|what| match payload {
            [] => empty(),
            _ => Fault::decode("framing", format!("the payload {what}")),
        })?;
        Ok(Frame { id, bytes, rest: None })
    }

    fn header(&mut self, index: usize) -> Option<&'a [u8]> {
        let mut found = None;
        while let Some(header) = self.headers.next_if(|header| header.record <= index) {
            if header.record == index && header.name == Known::ValueSchemaId {
                found = Some(&*header.value);
            }
        }
        found
    }
}

/// The id at the beginning of some bytes, and how many it takes; or what is wrong with them.
fn id(bytes: &[u8], id_bytes: usize) -> Result<(SchemaId, usize), String> {
    match bytes {
        [0, a, b, c, d, ..] if id_bytes == 4 => Ok((SchemaId::Id(u32::from_be_bytes([*a, *b, *c, *d]).into()), 5)),
        [0, rest @ ..] if id_bytes == 8 && rest.len() >= 8 => {
            let id = rest[..8].iter().fold(0, |id, &byte| id << 8 | u64::from(byte));
            Ok((SchemaId::Id(id), 9))
        }
        [1, rest @ ..] if rest.len() >= 16 => {
            let guid = rest[..16].iter().fold(0, |guid, &byte| guid << 8 | u128::from(byte));
            Ok((SchemaId::Guid(guid), 17))
        }
        [] | [0 | 1, ..] => Err("ends within its schema's id".to_string()),
        [first, ..] => {
            Err(format!("begins with byte {first}, not with a schema's id behind 0 or 1: it was written without the registry"))
        }
    }
}

/// The ids in a batch, each once and at most so many.
pub(super) fn ids(payloads: &Payloads, id_bytes: usize, most: usize) -> Vec<SchemaId> {
    let mut frames = Frames::new(&payloads.headers, id_bytes);
    let (mut ids, mut last, mut from) = (Vec::new(), None, 0);
    for (index, &to) in payloads.ends.iter().enumerate() {
        let id = frames.next(index, &payloads.bytes[std::mem::replace(&mut from, to)..to]).ok().map(|frame| frame.id);
        if let (Some(id), true) = (id, id != last)
            && !ids.contains(&id)
            && ids.len() < most
        {
            ids.push(id);
        }
        last = id.or(last);
    }
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_stands_before_the_payload_or_in_its_header() {
        let guid = [[1].as_slice(), &[0xab; 16]].concat();
        let of_guid = SchemaId::Guid(u128::from_be_bytes([0xab; 16]));
        let mut payloads = Payloads::default();
        payloads.push(0, Some(&[0, 0, 0, 1, 2, 9]));
        payloads.push(1, Some(&guid));
        payloads.push(2, Some(b"bare"));
        payloads.push_header(Known::Lane, b"a");
        payloads.push_header(Known::ValueSchemaId, &[guid.as_slice(), &[2, 4]].concat());
        payloads.push(3, Some(b""));
        payloads.push_header(Known::ValueSchemaId, &[0, 0, 0, 0, 7]);
        payloads.push(4, Some(b"bare"));
        payloads.push_header(Known::ValueSchemaId, &guid[..5]);
        payloads.push(5, Some(b"bare"));
        let mut frames = Frames::new(&payloads.headers, 4);
        let mut next = |index: usize, payload: &[u8]| frames.next(index, payload).map_err(|fault| fault.code);
        assert_eq!(next(0, &[0, 0, 0, 1, 2, 9]), Ok(Frame { id: SchemaId::Id(258), bytes: 5, rest: None }));
        assert_eq!(next(1, &guid), Ok(Frame { id: of_guid, bytes: 17, rest: None }));
        assert_eq!(next(2, b"bare"), Ok(Frame { id: of_guid, bytes: 0, rest: Some(&[2, 4]) }));
        assert_eq!(next(3, b""), Ok(Frame { id: SchemaId::Id(7), bytes: 0, rest: Some(&[]) }));
        assert_eq!(next(4, b"bare"), Err("framing"));
        assert_eq!(next(5, b"bare"), Err("framing"));
        assert_eq!(ids(&payloads, 4, 10), [SchemaId::Id(258), of_guid, SchemaId::Id(7)]);
        assert_eq!(id(&[0, 0, 0, 0, 0, 0, 0, 1, 2, 9], 8), Ok((SchemaId::Id(258), 9)));
        assert!(id(&[0, 0, 0, 0, 0, 0, 0, 1], 8).is_err());
    }
}
