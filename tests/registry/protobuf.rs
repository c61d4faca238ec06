//! The same in Protobuf.

use serde_json::{Value, json};

use super::{Setup, UNUSED, needed};
use crate::support::kafka::Record;

async fn setup(columns: &str, sink: &str, select: &str) -> Setup {
    Setup::new("protobuf", columns, sink, select, &needed("SCHEMA_REGISTRY_URL")).await
}

/// Records of one message of a file.
fn step(schema: &str, message: &str, records: Value) -> Value {
    json!({"format": "protobuf", "schema": schema, "message": message, "records": records})
}

#[tokio::test]
async fn protobuf_of_the_python_client_is_read_into_columns_that_the_registry_names() {
    let sink = "id BIGINT, title VARCHAR, kind VARCHAR, at TIMESTAMP, pct DOUBLE, live BOOLEAN, small INT, many BIGINT UNSIGNED, maybe BIGINT, \
                one VARCHAR";
    let select = "id, title, kind, at, pct, live, small, many, maybe, one";
    let setup = setup("", sink, select).await;
    let schema = r#"syntax = "proto3";
        package shop;
        import "google/protobuf/timestamp.proto";
        import "google/protobuf/wrappers.proto";
        message Play {
            int64 id = 1;
            optional string title = 2;
            enum Kind { PLAY = 0; A_KIND_OF_MORE_THAN_TWELVE = 1; }
            Kind kind = 3;
            repeated string tags = 4;
            google.protobuf.Timestamp at = 5;
            double pct = 6;
            bool live = 7;
            sint32 small = 8;
            fixed64 many = 9;
            google.protobuf.Int64Value maybe = 10;
            oneof either { string one = 11; int32 other = 12; }
            map<string, int32> counts = 13;
            Play inner = 14;
        }"#;
    let full = json!({"id": "1", "title": "é \"quoted\" and longer than twelve", "kind": "A_KIND_OF_MORE_THAN_TWELVE", "tags": ["a", "b"],
        "at": "2023-11-14T22:13:20.123456Z", "pct": 0.5, "live": true, "small": -3, "many": "18446744073709551615", "maybe": "0", "one": "x",
        "counts": {"a": 1}, "inner": {"id": "5"}});
    setup.write(&[step(schema, "shop.Play", json!([full, {"id": "-2", "other": 1}]))]);
    setup.project.run_until_latest(UNUSED);
    assert_eq!(setup.dead(), []);
    let expected = [
        json!({"id": -2, "title": null, "kind": "PLAY", "at": null, "pct": 0.0, "live": false, "small": 0, "many": 0, "maybe": null, "one": null}),
        json!({"id": 1, "title": "é \"quoted\" and longer than twelve", "kind": "A_KIND_OF_MORE_THAN_TWELVE",
            "at": "2023-11-14T22:13:20.123456Z", "pct": 0.5, "live": true, "small": -3, "many": 18_446_744_073_709_551_615_u64, "maybe": 0,
            "one": "x"}),
    ];
    assert_eq!(setup.found(), expected);
    setup.finish().await;
}

#[tokio::test]
async fn versions_in_protobuf_are_read_into_one_table_and_what_does_not_fit_is_named() {
    let columns = "(id BIGINT, title VARCHAR, length BIGINT, device VARCHAR)";
    let setup = setup(columns, columns.trim_matches(['(', ')']), "id, title, length, device").await;
    let first = r#"syntax = "proto3"; message Play { int32 id = 1; string name = 2; int32 length = 3; }"#;
    // Another type altogether; the registry has no rule against it.
    let unlike = r#"syntax = "proto3"; message Play { string id = 1; string name = 2; }"#;
    // Renamed, widened, removed, added; and not the first message of its file any more.
    let last = r#"syntax = "proto3"; import "device.proto";
        message Other { message Inner { message Play { string device = 4; int64 id = 1; } } }
        message Play { optional Device device = 4; string title = 2; int64 id = 1; }"#;
    let imports = json!({"device.proto": r#"syntax = "proto3"; enum Device { UNKNOWN = 0; TV = 1; }"#});
    let with_imports = |mut step: Value| {
        step["imports"] = imports.clone();
        step
    };
    setup.write(&[
        step(first, "Play", json!([{"id": 1, "name": "one", "length": 11}])),
        step(unlike, "Play", json!([{"id": "x", "name": "bad"}])),
        with_imports(step(last, "Play", json!([{"id": "1099511627776", "title": "two", "device": "TV"}]))),
        with_imports(step(last, "Other.Inner.Play", json!([{"id": "4", "device": "nested"}]))),
        step(first, "Play", json!([{"id": 3, "name": "three", "length": 33}])),
    ]);
    // No frame, an id that the registry does not have, and a record that is cut off.
    let strange = [b"{}".to_vec(), vec![0, 0x7f, 0, 0, 1, 0, 2], vec![0, 0, 0]];
    setup.project.topic.produce(0, &strange.map(Record::of));
    setup.project.run_until_latest(UNUSED);
    let expected = [
        json!({"id": 1, "title": "one", "length": 11, "device": null}),
        json!({"id": 3, "title": "three", "length": 33, "device": null}),
        json!({"id": 4, "title": null, "length": null, "device": "nested"}),
        json!({"id": 1_i64 << 40, "title": "two", "length": null, "device": "TV"}),
    ];
    let mut dead = setup.dead();
    dead.sort();
    assert_eq!(setup.found(), expected, "{dead:?}");
    let codes: Vec<_> = dead.iter().map(|(stage, code, _)| (stage.as_str(), code.as_str())).collect();
    let expected =
        [("decode", "framing"), ("decode", "framing"), ("schema", "incompatible_schema"), ("schema", "unknown_schema")];
    assert_eq!(codes, expected);
    let subject = format!("version 2 of subject '{}-value'", setup.project.name);
    assert!(dead[2].2.contains(&subject) && dead[2].2.contains("'id' is a string"), "{}", dead[2].2);
    setup.finish().await;
}
