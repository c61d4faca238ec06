//! The parts of falaj that targets run: the very files of src, with the little that they need of others. Decoding alone takes a minute or two to
//! build; all of falaj takes fifteen.
//!
//! A decoder that a new target needs becomes a `mod` of [`decode`], and what it needs beside that a `mod` of this file.

#![allow(dead_code, unused_imports)]

#[path = "../../src/batch.rs"]
pub mod batch;
#[path = "../../src/clock.rs"]
pub mod clock;
#[path = "../../src/debezium.rs"]
pub mod debezium;
#[path = "../../src/error.rs"]
pub mod error;
#[path = "../../src/headers.rs"]
pub mod headers;
#[path = "../../src/pgoutput/mod.rs"]
pub mod pgoutput;
#[path = "../../src/position.rs"]
pub mod position;

/// As in src, of what a schema is: there it comes from a server.
#[path = "../../src/registry"]
pub mod registry {
    pub mod id;
    pub mod proto;

    pub enum SchemaType {
        Avro,
        Protobuf,
    }

    pub struct Schema {
        pub schema_type: SchemaType,
        pub text: String,
    }

    pub mod schemas {
        pub struct Known {
            pub schema: super::Schema,
            pub references: Vec<(String, super::Schema)>,
        }
    }
}

/// The same tree as in src, of the files that are needed: what is visible in it only, is so here.
#[path = "../../src/decode"]
pub mod decode {
    mod avro;
    pub mod debezium;
    pub mod json;
    mod protobuf;
    mod rows;

    /// As in src.
    mod framed {
        use crate::batch::Stage;

        #[derive(Debug, Clone)]
        pub(in crate::decode) struct Fault {
            pub(in crate::decode) stage: Stage,
            pub(in crate::decode) code: &'static str,
            pub(in crate::decode) message: String,
        }

        impl Fault {
            pub(in crate::decode) fn decode(code: &'static str, message: impl Into<String>) -> Self {
                Self { stage: Stage::Decode, code, message: message.into() }
            }

            pub(in crate::decode) fn schema(code: &'static str, message: impl Into<String>) -> Self {
                Self { stage: Stage::Schema, code, message: message.into() }
            }
        }
    }

    /// Of the decoder of Postgres' changes, what writes them as Debezium does.
    pub mod pgoutput {
        pub mod debezium;

        use self::debezium::{Envelopes, Origin, Shape};
        use crate::clock::Clock;
        use crate::pgoutput::{Change, Relation};

        /// As in src.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Changes {
            Inserts,
            All,
        }

        /// The records of a change.
        pub fn records(change: &Change<'_>, relation: &Relation) -> Vec<u8> {
            let origin = Origin { slot: String::new(), database: String::new() };
            let mut to = Vec::new();
            let written = Envelopes::new(&origin, Clock::held(0)).write(change, &Shape::of(relation), &mut to);
            assert_eq!(written, Ok(()));
            to
        }
    }

    use arrow::array::{Int64Array, RecordBatch};
    use arrow::datatypes::SchemaRef;

    use crate::batch::{DeadLetter, Payloads};
    use crate::error::Result;
    use crate::position::Span;
    use crate::registry::schemas::Known;

    /// As in src.
    pub trait Decoder {
        fn schema(&self) -> SchemaRef;
        fn prepare(&mut self, payloads: &Payloads) -> Result<()>;
        fn decode(&mut self, payloads: Payloads) -> Result<Decoded>;
    }

    /// As in src.
    #[derive(Debug)]
    pub struct Decoded {
        pub span: Span,
        pub rows: RecordBatch,
        pub offsets: Int64Array,
        pub dead: Vec<DeadLetter>,
        pub tombstones: Vec<i64>,
        pub appended_ms: i64,
        pub lost: u64,
    }

    /// A decoder of JSON, with the fast path or without.
    pub fn json_decoder(schema: &SchemaRef, fast: bool) -> json::JsonDecoder {
        let mut decoder = json::JsonDecoder::new(SchemaRef::clone(schema)).unwrap();
        decoder.fast = fast;
        decoder
    }

    /// How the records of one writer's schema are read.
    pub struct AvroReader {
        plan: avro::AvroPlan,
        rows: rows::Rows,
        columns: SchemaRef,
    }

    impl AvroReader {
        pub fn new(writer: &Known, columns: SchemaRef) -> Self {
            let plan = avro::AvroPlan::new(writer, None, &columns).unwrap();
            Self { plan, rows: rows::Rows::new(&columns).unwrap(), columns }
        }

        /// Reads records one after the other, and gives the rows, and which records they are.
        pub fn read(&mut self, records: &[&[u8]]) -> (RecordBatch, Vec<usize>) {
            let Self { plan, rows, columns } = self;
            each(records, rows, columns, |rows, bytes, from, to| plan.read(rows, bytes, from, to))
        }
    }

    /// How the records of the first message of a writer's schema are read.
    pub struct ProtobufReader {
        plan: protobuf::ProtobufPlan,
        rows: rows::Rows,
        columns: SchemaRef,
    }

    impl ProtobufReader {
        pub fn new(writer: &Known, columns: SchemaRef) -> Self {
            let plan = protobuf::ProtobufPlan::new(writer, &[0], None, &columns).unwrap();
            let rows = rows::Rows::new(&columns).unwrap();
            Self { plan, rows, columns }
        }

        /// As for Avro. What the bytes would be as the place of a message is looked at, too.
        pub fn read(&mut self, records: &[&[u8]]) -> (RecordBatch, Vec<usize>) {
            let Self { plan, rows, columns } = self;
            each(records, rows, columns, |rows, bytes, from, to| {
                let bytes = &bytes[..to];
                if let Ok(length) = protobuf::path_bytes(&bytes[from..]) {
                    assert!(length <= bytes.len() - from);
                }
                plan.read(rows, bytes, from)
            })
        }
    }

    fn each(
        records: &[&[u8]],
        rows: &mut rows::Rows,
        columns: &SchemaRef,
        mut read: impl FnMut(&mut rows::Rows, &[u8], usize, usize) -> std::result::Result<(), framed::Fault>,
    ) -> (RecordBatch, Vec<usize>) {
        let Payloads { bytes, ends, .. } = crate::payloads(records);
        let (mut from, mut good) = (0, Vec::new());
        for (index, to) in ends.into_iter().enumerate() {
            match read(rows, &bytes, from, to) {
                Ok(()) => {
                    rows.count += 1;
                    good.push(index);
                }
                Err(fault) => {
                    assert!(!fault.code.is_empty() && fault.message.len() < 500, "{fault:?}");
                    rows.undo();
                }
            }
            from = to;
        }
        (rows.finish(columns, bytes).unwrap(), good)
    }
}

/// Records with the offsets 0, 1, …
pub fn payloads(records: &[&[u8]]) -> batch::Payloads {
    let mut payloads = batch::Payloads::default();
    records.iter().zip(0..).for_each(|(record, offset)| payloads.push(offset, Some(record)));
    payloads
}
