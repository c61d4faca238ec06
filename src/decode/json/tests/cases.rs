//! What each payload becomes.

use super::check;

#[test]
fn a_payload_is_exactly_one_object() {
    for (payload, expected) in [
        ("{}", Ok("")),
        (" \t\r\n{ } \n", Ok("")),
        (" { \"id\" : 7 , \"x\" : [ ] } ", Ok("id=7")),
        ("", Err("empty")),
        (" \n\t", Err("empty")),
        ("{", Err("truncated")),
        ("{\"id\":1", Err("truncated")),
        ("{\"id\":1,\"raw_payload\":{\"a\":\"b", Err("truncated")),
        ("{\"id\":tru", Err("truncated")),
        ("{\"id\":-", Err("truncated")),
        ("{\"double\":-1.5e+", Err("truncated")),
        ("[1.", Err("truncated")),
        ("{\"id\":--", Err("syntax")),
        ("{\"id\" 1,\"x\":-", Err("syntax")),
        ("{\"x\":\"\\u12", Err("truncated")),
        ("{\"x\":\"\\u12\"}", Err("syntax")),
        ("{\"x\":\"\\\\u\"", Err("truncated")),
        ("{\"id\":1}{\"id\":2}", Err("trailing")),
        ("{\"id\":1}\n{\"id\":2}", Err("trailing")),
        ("{\"id\":1}x", Err("trailing")),
        ("{\"id\":1}\0", Err("trailing")),
        ("[{\"id\":1}]", Err("not_an_object")),
        ("1", Err("not_an_object")),
        ("\"{}\"", Err("not_an_object")),
        ("null", Err("not_an_object")),
        ("[1,2", Err("truncated")),
        ("1 2", Err("trailing")),
        ("}", Err("syntax")),
        ("id", Err("syntax")),
        ("\u{feff}{}", Err("syntax")),
        ("{\"id\":1,}", Err("syntax")),
        ("{,\"id\":1}", Err("syntax")),
        ("{\"id\" 1}", Err("syntax")),
        ("{id:1}", Err("syntax")),
        ("{'id':1}", Err("syntax")),
        ("{\"id\":1 \"x\":2}", Err("syntax")),
        ("{\"x\":1{\"id\":2}", Err("syntax")),
        ("{\"x\":1,{\"id\":2}", Err("syntax")),
        ("{\"id\":01}", Err("syntax")),
        ("{\"id\":+1}", Err("syntax")),
        ("{\"id\":-}", Err("syntax")),
        ("{\"double\":1.}", Err("syntax")),
        ("{\"double\":.5}", Err("syntax")),
        ("{\"double\":1e}", Err("syntax")),
        ("{\"double\":NaN}", Err("syntax")),
        ("{\"double\":Infinity}", Err("syntax")),
        ("{\"double\":-Infinity}", Err("syntax")),
        ("{\"x\":NaN}", Err("syntax")),
        ("{\"x\":[1,]}", Err("syntax")),
        ("{\"x\":[1}", Err("syntax")),
        ("{\"x\":{\"a\"}}", Err("syntax")),
        ("{\"x\":\"\n\"}", Err("syntax")),
        ("{\"x\":\"\\x\"}", Err("syntax")),
        ("{\"x\":\"\\u12g4\"}", Err("syntax")),
        ("{\"id\":1}//", Err("trailing")),
    ] {
        check(payload, expected);
    }
}

#[test]
fn fields_are_found_by_their_exact_name() {
    for (payload, expected) in [
        (r#"{"flag":true,"id":2,"new":{"a":[1,{"b":null}]},"event_type":"x"}"#, Ok("id=2 event_type=x flag=true")),
        (r#"{"\u0069d":3}"#, Ok("id=3")),
        (r#"{"ID":3,"id ":4,"":5}"#, Ok("")),
        (
            r#"{"id":null,"event_type":null,"event_ts":null,"flag":null,"price":null,"day":null,"real":null,"utf8":null}"#,
            Ok(""),
        ),
        (r#"{"id":1,"id":2}"#, Ok("id=2")),
        (r#"{"id":1,"id":null}"#, Ok("")),
        (r#"{"id":"x","id":2}"#, Ok("id=2")),
        (r#"{"id":1,"\u0069d":"x"}"#, Err("type_mismatch")),
        (r#"{"x":1,"x":2,"id":5}"#, Ok("id=5")),
    ] {
        check(payload, expected);
    }
}

#[test]
fn numbers_keep_to_their_types() {
    for (payload, expected) in [
        (r#"{"id":-0}"#, Ok("id=0")),
        (r#"{"id":9223372036854775807,"tiny":-128,"byte":255}"#, Ok("id=9223372036854775807 tiny=-128 byte=255")),
        (r#"{"huge":18446744073709551615}"#, Ok("huge=18446744073709551615")),
        (r#"{"id":9223372036854775808}"#, Err("out_of_range")),
        (r#"{"id":100000000000000000000000000}"#, Err("out_of_range")),
        (r#"{"huge":18446744073709551616}"#, Err("out_of_range")),
        (r#"{"tiny":128}"#, Err("out_of_range")),
        (r#"{"byte":-1}"#, Err("out_of_range")),
        (r#"{"id":"1"}"#, Err("type_mismatch")),
        (r#"{"id":1.5}"#, Err("type_mismatch")),
        (r#"{"id":1.0}"#, Err("type_mismatch")),
        (r#"{"id":1e2}"#, Err("type_mismatch")),
        (r#"{"id":true}"#, Err("type_mismatch")),
        (r#"{"id":{}}"#, Err("type_mismatch")),
        (r#"{"id":[1]}"#, Err("type_mismatch")),
        (r#"{"double":1e2,"real":0.1}"#, Ok("real=0.1 double=100.0")),
        (r#"{"double":0.1000000000000000055511151231257827021181583404541015625}"#, Ok("double=0.1")),
        (r#"{"double":123456789012345678}"#, Ok("double=1.2345678901234568e17")),
        (r#"{"double":-0}"#, Ok("double=-0.0")),
        (r#"{"double":1e-400}"#, Ok("double=0.0")),
        (r#"{"double":1e400}"#, Err("out_of_range")),
        (r#"{"real":1e39}"#, Err("out_of_range")),
        // Halfway between two floats once rounded to a double; above the half in truth.
        (r#"{"real":1.00000005960464477540}"#, Ok("real=1.0000001")),
        (r#"{"double":"1"}"#, Err("type_mismatch")),
        (r#"{"flag":false}"#, Ok("flag=false")),
        (r#"{"flag":1}"#, Err("type_mismatch")),
        (r#"{"flag":"true"}"#, Err("type_mismatch")),
        (r#"{"price":12.345}"#, Ok("price=12.35")),
        (r#"{"price":"-12.3"}"#, Ok("price=-12.30")),
        (r#"{"price":" 12"}"#, Err("type_mismatch")),
        (r#"{"price":""}"#, Err("type_mismatch")),
        (r#"{"price":10000}"#, Err("out_of_range")),
        (r#"{"price":true}"#, Err("type_mismatch")),
    ] {
        check(payload, expected);
    }
}

#[test]
fn texts_hold_strings_and_the_text_of_anything_else() {
    for (payload, expected) in [
        (r#"{"event_type":""}"#, Ok("event_type=")),
        (r#"{"event_type":"twelve bytes"}"#, Ok("event_type=twelve bytes")),
        (r#"{"event_type":"thirteen byte"}"#, Ok("event_type=thirteen byte")),
        (r#"{"event_type":"żółć, 日本語, 🎬"}"#, Ok("event_type=żółć, 日本語, 🎬")),
        (r#"{"event_type":"a\"b\\c\/d\n\u00e9\ud83c\udfac, and more"}"#, Ok("event_type=a\"b\\c/d\né🎬, and more")),
        (r#"{"event_type":"\u0041"}"#, Ok("event_type=A")),
        (r#"{"event_type":{"a" : [1, 2.50, "\u00e9\""] }  }"#, Ok(r#"event_type={"a" : [1, 2.50, "\u00e9\""] }"#)),
        (r#"{"event_type":[ ]}"#, Ok("event_type=[ ]")),
        (r#"{"event_type":-1.50e+3}"#, Ok("event_type=-1.50e+3")),
        (r#"{"event_type":true}"#, Ok("event_type=true")),
        (
            r#"{"utf8":"a long text in utf8","large":{"k":"v, rather long"}}"#,
            Ok(r#"utf8=a long text in utf8 large={"k":"v, rather long"}"#),
        ),
        (r#"{"utf8":"short","large":"esc\taped and quite long"}"#, Ok("utf8=short large=esc\taped and quite long")),
        (r#"{"event_type":"\ud83c"}"#, Err("syntax")),
        (r#"{"event_type":"\udfac"}"#, Err("syntax")),
        (r#"{"event_type":"\ud83c\u0041"}"#, Err("syntax")),
        (r#"{"x":"\ud83cx"}"#, Err("syntax")),
        (r#"{"\ud83c":1}"#, Err("syntax")),
        (r#"{"event_type":{"a":"\ud83c"}}"#, Err("syntax")),
        (r#"{"x":"\\ud83c"}"#, Ok("")),
        (r#"{"x":"\ud83c\udfac\\\ud83c\udfac"}"#, Ok("")),
    ] {
        check(payload, expected);
    }
}

#[test]
fn times_need_a_date_a_time_and_an_offset() {
    for (payload, expected) in [
        (r#"{"event_ts":"2026-11-23T10:00:00Z"}"#, Ok("event_ts=2026-11-23T10:00:00")),
        (r#"{"event_ts":"2026-11-23 12:30:00.1234567891+02:30"}"#, Ok("event_ts=2026-11-23T10:00:00.123456789")),
        (r#"{"event_ts":"2026\u002d11-23T10:00:00Z"}"#, Ok("event_ts=2026-11-23T10:00:00")),
        (r#"{"zoned":"2026-11-23T10:00:00.1239-01:00"}"#, Ok("zoned=2026-11-23T11:00:00.123Z")),
        (r#"{"zoned":"9999-12-31T23:59:59Z"}"#, Ok("zoned=9999-12-31T23:59:59Z")),
        (r#"{"event_ts":"9999-12-31T23:59:59Z"}"#, Err("out_of_range")),
        (r#"{"event_ts":"2026-11-23"}"#, Err("time")),
        (r#"{"event_ts":"2026-11-23T10:00:00"}"#, Err("time")),
        (r#"{"event_ts":"2026-02-30T10:00:00Z"}"#, Err("time")),
        (r#"{"event_ts":""}"#, Err("time")),
        (r#"{"event_ts":"ąęśćżółńąęśćżółńąęśćżółńąęśćżółńąęśćżółń"}"#, Err("time")),
        (r#"{"event_ts":1795428000000}"#, Err("type_mismatch")),
        (r#"{"day":"2026-11-23"}"#, Ok("day=2026-11-23")),
        (r#"{"day":"1969-12-31"}"#, Ok("day=1969-12-31")),
        (r#"{"day":"2026-11-31"}"#, Err("time")),
        (r#"{"day":"2026-11-23T10:00:00Z"}"#, Err("time")),
        (r#"{"day":20000}"#, Err("type_mismatch")),
    ] {
        check(payload, expected);
    }
}

#[test]
fn a_record_that_fails_in_its_last_field_leaves_nothing_behind() {
    check(r#"{"id":9,"event_type":"a text that is rather long","event_ts":null,"price":1,"day":"?"}"#, Err("time"));
    check(r#"{"id":9,"event_type":"\u0041 text that is rather long","event_ts":null,"price":1,"day":"?"}"#, Err("time"));
}

#[test]
fn hostile_payloads_cost_only_themselves() {
    let nested = |levels: usize, open: &str, close: &str| format!("{{\"x\":{}1{}}}", open.repeat(levels), close.repeat(levels));
    check(nested(127, "[", "]"), Ok(""));
    check(nested(128, "[", "]"), Err("depth"));
    check(nested(127, "{\"a\":", "}"), Ok(""));
    check(nested(128, "{\"a\":", "}"), Err("depth"));
    check(nested(10_000, "[", "]"), Err("depth"));
    check(nested(10_000, "{\"a\":", "}"), Err("depth"));
    check(nested(10_000, "[", ""), Err("syntax"));
    check("{\"x\":".to_owned() + &"[".repeat(10_000), Err("truncated"));
    check("[".repeat(10_000), Err("truncated"));
    check("[".repeat(10_000) + &"]".repeat(10_000), Err("not_an_object"));
    check(format!("{{\"event_type\":\"{}\"}}", "[{".repeat(10_000)), Ok(&format!("event_type={}", "[{".repeat(10_000))));
    let spaces = " ".repeat(1 << 20);
    check(&spaces, Err("empty"));
    check(format!("{{\"id\":{spaces}1{spaces}}}{spaces}"), Ok("id=1"));
    check(format!("{{\"id\":1{}}}", "0".repeat(1 << 20)), Err("out_of_range"));
    check(format!("{{\"price\":0.{}}}", "0".repeat(1 << 20)), Ok("price=0.00"));
    check(format!("{{\"id\":\"{}\"}}", "x".repeat(1 << 20)), Err("type_mismatch"));
    check(format!("{{\"{}\":1,\"id\":2}}", "k".repeat(1 << 20)), Ok("id=2"));
}

#[test]
fn bytes_that_are_not_utf8_cost_only_their_record() {
    check(b"{\"id\":1,\"x\":\"\xff\"}", Err("utf8"));
    check(b"\xff", Err("utf8"));
    check(b"{\"event_type\":\"\xed\xa0\x80\"}", Err("utf8"));
    check(b"{\"event_type\":\"\xc3\"}", Err("utf8"));
}

#[test]
fn a_character_cut_in_two_by_records_is_not_one() {
    // Valid only if the two are read as one.
    let records: [&[u8]; 4] = [super::EVENT.as_bytes(), b"{}\xc3", b"\xa9{}", super::EVENT.as_bytes()];
    let mut decoder = super::JsonDecoder::new(super::schema()).expect("schema");
    let decoded = super::decode(&mut decoder, super::payloads(records));
    assert_eq!(decoded.dead.iter().map(|letter| letter.code).collect::<Vec<_>>(), ["utf8", "utf8"]);
}
