//! SECURITY.md promises nothing that no test shows: each test that it names is there.

use std::path::Path;

/// What stands between backticks and looks like `path/file.rs::name_of_a_test`.
fn named(text: &str) -> Vec<(&str, &str)> {
    let ticked = text.split('`').skip(1).step_by(2);
    ticked.filter_map(|word| word.split_once("::")).filter(|(file, _)| file.ends_with(".rs")).collect()
}

#[test]
fn every_test_that_the_threat_model_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let model = std::fs::read_to_string(root.join("SECURITY.md")).unwrap();
    let named = named(&model);
    assert!(named.len() > 30, "{} tests were found", named.len());
    let is_there = |(file, test): &(&str, &str)| {
        let text = std::fs::read_to_string(root.join(file)).unwrap_or_default();
        let mut lines = text.lines().map(str::trim_start);
        // The attribute may have others after it.
        let begins = ["fn ", "async fn "].map(|word| format!("{word}{test}("));
        let mut is_test = false;
        lines.any(|line| {
            is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
            let is_fn = line.contains("fn ");
            let found = is_test && begins.iter().any(|begin| line.starts_with(begin));
            is_test &= !is_fn;
            found
        })
    };
    let missing: Vec<_> = named.iter().filter(|name| !is_there(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_line_of_the_threat_model_names_a_test_or_says_that_nothing_defends() {
    let model = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("SECURITY.md")).unwrap();
    let rows = model.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| He tries"));
    let bare: Vec<&str> = rows.filter(|row| named(row).is_empty() && !row.contains("**not defended**")).collect();
    assert!(bare.is_empty(), "{bare:?}");
}
