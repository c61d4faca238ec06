//! The same in Protobuf.

use serde_json::{Value, json};

use super::{COLUMNS, Setup, UNUSED, rows};

#[tokio::test]
async fn rows_in_protobuf_are_read_by_the_python_client_with_every_type_and_null() {
    let setup = Setup::new().await;
    let columns = format!("{COLUMNS}, share4 REAL, few INT UNSIGNED, raw BYTEA");
    let select = "*, CAST(share AS REAL) AS share4, CAST(id AS INT UNSIGNED) AS few, CAST(name AS BYTEA) AS raw";
    setup.sink("protobuf", &columns, ", 'key' 'id'", select);
    let mut sent = rows();
    sent[2]["share"] = json!(-0.5);
    setup.send(&sent);
    setup.project.run_until_latest(UNUSED);
    let fields = "id 1 int64,name 2 string?,price 3 string?,seen 4 Timestamp,born 5 string?,ok 6 bool?,share 7 double?,small 8 int32?,\
                  share4 9 float?,few 10 uint32?,raw 11 bytes?";
    let expected = [
        json!({"key": "1", "value": {"id": 1, "name": "قهوة ☕", "price": "12.50", "seen": "2026-01-31T12:00:00.123456Z",
            "born": "1999-02-28", "ok": true, "share": 0.25, "small": -7, "share4": 0.25, "few": 1, "raw": "d982d987d988d8a920e29895"}}),
        json!({"key": "2", "value": {"id": 2, "name": null, "price": null, "seen": null, "born": null, "ok": null, "share": null,
            "small": null, "share4": null, "few": 2, "raw": null}}),
        json!({"key": "3", "value": {"id": 3, "name": "", "price": "-0.01", "seen": "1969-12-31T23:59:59.500Z", "born": "1969-12-31",
            "ok": false, "share": -0.5, "small": 2147483647, "share4": -0.5, "few": 3, "raw": ""}}),
    ];
    assert_eq!(setup.read_by_python_as("protobuf", fields), expected);
    setup.project.finish().await;
}

#[tokio::test]
async fn in_protobuf_a_column_keeps_its_number_wherever_it_is_declared() {
    let setup = Setup::new().await;
    setup.sink("protobuf", "id BIGINT NOT NULL, name VARCHAR, small INT", "", "id, name, small");
    setup.send(&rows()[..1]);
    setup.project.run_until_latest(UNUSED);

    // Apicurio's BACKWARD takes a new order and new fields, but refuses that one goes, reserved or not.
    setup.sink("protobuf", "ok BOOLEAN, small INT, id BIGINT NOT NULL", "", "ok, small, id");
    setup.send(&rows()[2..]);
    setup.project.run_until_latest(UNUSED);
    let values = |fields: &str| -> Vec<Value> {
        setup.read_by_python_as("protobuf", fields).into_iter().map(|record| record["value"].clone()).collect()
    };
    // Who has not heard of the new version reads on, and so does who has.
    let expected = [json!({"id": 1, "name": "قهوة ☕", "small": -7}), json!({"id": 3, "name": null, "small": 2147483647})];
    assert_eq!(values("id 1 int64,name 2 string?,small 3 int32?"), expected);
    let expected = [json!({"id": 1, "small": -7, "ok": null}), json!({"id": 3, "small": 2147483647, "ok": false})];
    assert_eq!(values("id 1 int64,small 3 int32?,ok 4 bool?"), expected);

    setup.require_backward().await;
    setup.sink("protobuf", "id BIGINT NOT NULL, more BIGINT, small INT, ok BOOLEAN", "", "id, id + 0 AS more, small, ok");
    setup.send(&rows()[..1]);
    setup.project.run_until_latest(UNUSED);
    assert_eq!(values("more 5 int64?").pop(), Some(json!({"more": 1})));
    setup.sink("protobuf", "ok BOOLEAN, small VARCHAR, id BIGINT NOT NULL", "", "ok, name, id");
    setup.send(&rows()[..1]);
    setup.may_not_follow(3);
    setup.project.finish().await;
}
