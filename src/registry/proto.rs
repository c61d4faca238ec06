//! Schemas in Protobuf: the text of a `.proto` file, or its `FileDescriptorProto` in base64, as some clients register it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message as _;
use prost_types::FileDescriptorProto;

/// A `.proto` file that people write is a hundredth of this.
const TEXT_BYTES_MAX: usize = 1 << 20;

/// Brackets inside each other. The parser goes down a level of its own stack with each.
const LEVELS_MAX: usize = 64;

/// Parses one file; names are as they stand there. The error is a sentence.
pub fn parse(text: &str) -> Result<FileDescriptorProto, String> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(format!("the schema has {} bytes; {TEXT_BYTES_MAX} are read at most", text.len()));
    }
    // No letter of base64 ends a statement.
    if !text.contains([';', '{'])
        && let Ok(bytes) = STANDARD.decode(text.trim())
    {
        return FileDescriptorProto::decode(bytes.as_slice())
            .map_err(|cause| format!("the schema is no descriptor of a file: {cause}"));
    }
    if levels(text) > LEVELS_MAX {
        return Err(format!("the schema has more than {LEVELS_MAX} levels of brackets"));
    }
    protox_parse::parse("schema.proto", text).map_err(|cause| format!("the schema is no Protobuf: {cause}"))
}

/// How deep brackets lie in each other at most, texts and comments left out.
fn levels(text: &str) -> usize {
    let bytes = text.as_bytes();
    let (mut open, mut most, mut at) = (0usize, 0, 0);
    let after = |at: usize, end: &str| {
        text.get(at..).and_then(|rest| rest.find(end)).map_or(bytes.len(), |found| at + found + end.len())
    };
    while at < bytes.len() {
        at = match (bytes[at], bytes.get(at + 1)) {
            (b'/', Some(b'/')) => after(at, "\n"),
            (b'/', Some(b'*')) => after(at + 2, "*/"),
            (quote @ (b'"' | b'\''), _) => {
                let mut end = at + 1;
                while end < bytes.len() && bytes[end] != quote {
                    end += if bytes[end] == b'\\' { 2 } else { 1 };
                }
                end + 1
            }
            (byte, _) => {
                match byte {
                    b'{' | b'[' | b'(' | b'<' => open += 1,
                    b'}' | b']' | b')' | b'>' => open = open.saturating_sub(1),
                    _ => {}
                }
                most = most.max(open);
                at + 1
            }
        };
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "syntax = \"proto3\"; // {{{\n/* {{ */ message M { map<string, int64> m = 1 [deprecated = true]; string s = 2; }";

    #[test]
    fn a_file_is_read_as_text_and_as_its_descriptor() {
        let file = parse(TEXT).unwrap();
        let mut bare = file.clone();
        bare.source_code_info = None;
        let found = parse(&STANDARD.encode(bare.encode_to_vec())).unwrap();
        assert_eq!((found.message_type[0].name(), found.message_type[0].field.len()), ("M", 2));
        assert_eq!(levels(TEXT), 2);
    }

    #[test]
    fn what_is_no_schema_or_has_no_bottom_is_a_sentence() {
        let deep = format!("syntax = \"proto3\"; {}{}", "message M {".repeat(100_000), "}".repeat(100_000));
        let (deep, large) = (&deep[..700_000], " ".repeat(TEXT_BYTES_MAX + 1));
        let quotes = format!("option a = \"\\\"{{{{\"; {}", "[".repeat(70));
        for text in ["", "{", "AAAA", deep, &large, &quotes, "message M { int64 a = 1 }", "é", "\"", "/*", "'\\"] {
            let why = parse(text).map(|file| file.message_type.len());
            assert!(why.is_err() || why == Ok(0), "{why:?}");
        }
    }
}
