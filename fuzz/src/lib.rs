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

    use arrow::array::{Array, AsArray, Int64Array, RecordBatch};
    use arrow::datatypes::{DataType, Int64Type, SchemaRef};

    use crate::batch::{DeadLetter, Payloads};
    use crate::error::Result;
    use crate::position::Span;
    use crate::registry::SchemaType;
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
    enum Plan {
        Avro(avro::AvroPlan),
        Protobuf(protobuf::ProtobufPlan),
    }

    /// Reads the records of one writer's schema; in Protobuf, of its first message.
    pub struct Reader {
        plan: Plan,
        rows: rows::Rows,
        columns: SchemaRef,
    }

    impl Reader {
        pub fn new(writer: &Known, columns: SchemaRef) -> Self {
            let plan = match writer.schema.schema_type {
                SchemaType::Avro => Plan::Avro(avro::AvroPlan::new(writer, None, &columns).unwrap()),
                SchemaType::Protobuf => Plan::Protobuf(protobuf::ProtobufPlan::new(writer, &[0], None, &columns).unwrap()),
            };
            Self { plan, rows: rows::Rows::new(&columns).unwrap(), columns }
        }

        /// Any bytes between records that are known to be good, whose first column is -1: each is a row or a fault, the same everywhere, and its
        /// neighbours come out whole.
        pub fn check(&mut self, any: &[u8], good: &[u8]) {
            let records = [any, good, any, good];
            let (rows, read) = self.read(&records);
            assert_eq!(rows.num_rows(), read.len());
            // Arrow makes all others only of values that fit.
            let texts = rows.columns().iter().filter(|column| *column.data_type() == DataType::Utf8View);
            texts.for_each(|column| column.to_data().validate_full().unwrap());
            assert!(read == [1, 3] || read == [0, 1, 2, 3], "{read:?}");
            let ids = rows.column(0).as_primitive::<Int64Type>();
            let neighbours = read.iter().zip(ids.values()).filter(|(index, _)| records[**index] == good);
            neighbours.for_each(|(_, id)| assert_eq!(*id, -1));
        }

        /// Reads records one after the other, and gives the rows, and which records they are.
        fn read(&mut self, records: &[&[u8]]) -> (RecordBatch, Vec<usize>) {
            let Self { plan, rows, columns } = self;
            let Payloads { bytes, ends, .. } = crate::payloads(records);
            let (mut from, mut good) = (0, Vec::new());
            for (index, to) in ends.into_iter().enumerate() {
                let read = match plan {
                    Plan::Avro(plan) => plan.read(rows, &bytes, from, to),
                    Plan::Protobuf(plan) => {
                        // They could begin with the place of a message, too.
                        if let Ok(length) = protobuf::path_bytes(&bytes[from..to]) {
                            assert!(length <= to - from);
                        }
                        plan.read(rows, &bytes, from, to)
                    }
                };
                match read {
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
}

/// Records with the offsets 0, 1, …
pub fn payloads(records: &[&[u8]]) -> batch::Payloads {
    let mut payloads = batch::Payloads::default();
    records.iter().zip(0..).for_each(|(record, offset)| payloads.push(offset, Some(record)));
    payloads
}
