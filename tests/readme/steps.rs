//! The marked blocks of a Markdown text, and whether a shown output is what was printed.

/// A marked block. `line` is the line of its mark, from 1.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Run { line: usize, code: String },
    Output { line: usize, text: String, numbers_vary: bool },
    Script { line: usize, code: String },
}

/// All marked blocks in their order; a mark that is misspelt, or stands before something else, is a problem.
pub(super) fn read(markdown: &str) -> Result<Vec<Step>, String> {
    let mut steps: Vec<Step> = Vec::new();
    let mut lines = markdown.lines().enumerate();
    while let Some((index, text)) = lines.next() {
        let Some(mark) = text.trim().strip_prefix("<!-- test:").and_then(|rest| rest.strip_suffix("-->")) else { continue };
        let line = index + 1;
        if !lines.next().is_some_and(|(_, text)| text.starts_with("```")) {
            return Err(format!("{line}: after the mark there is no fenced block"));
        }
        let code: String =
            lines.by_ref().map(|(_, text)| text).take_while(|text| *text != "```").flat_map(|text| [text, "\n"]).collect();
        steps.push(match mark.trim() {
            "run" => Step::Run { line, code },
            "script" => Step::Script { line, code },
            "output" => Step::Output { line, text: code, numbers_vary: false },
            "output, numbers vary" => Step::Output { line, text: code, numbers_vary: true },
            other => return Err(format!("{line}: the mark '{other}' is not known")),
        });
    }
    match steps.iter().find(|step| !matches!(step, Step::Script { .. })) {
        Some(Step::Output { line, .. }) => Err(format!("{line}: this output has no block before it that is run")),
        _ => Ok(steps),
    }
}

/// Whether `printed` is what `shown` says.
pub(super) fn same(shown: &str, printed: &str, numbers_vary: bool) -> bool {
    let lines = |text: &str| -> Vec<String> {
        let text = text.trim_matches('\n');
        text.lines().map(|line| if numbers_vary { without_numbers(line) } else { line.trim_end().to_string() }).collect()
    };
    fits(&lines(shown), &lines(printed))
}

/// A line `…` stands for any lines.
fn fits(shown: &[String], printed: &[String]) -> bool {
    match (shown, printed) {
        ([first, rest @ ..], _) if first == "…" => (0..=printed.len()).any(|skipped| fits(rest, &printed[skipped..])),
        ([first, shown @ ..], [line, printed @ ..]) => first == line && fits(shown, printed),
        (shown, printed) => shown.is_empty() && printed.is_empty(),
    }
}

/// Every number is `0`, and a run of spaces or of dashes, which widens with the numbers, is one.
fn without_numbers(line: &str) -> String {
    let mut plain = String::new();
    for c in line.trim().chars() {
        let c = if c.is_ascii_digit() { '0' } else { c };
        let repeated = matches!(c, '0' | ' ' | '-') && plain.ends_with(c);
        if !repeated {
            plain.push(c);
        }
    }
    // 1.5, 1,500 and 1500 are numbers.
    while plain.contains("0.0") || plain.contains("0,0") {
        plain = plain.replace("0.0", "0").replace("0,0", "0");
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marked_blocks_are_read_and_others_are_not() {
        let text = "# Title\n```sh\nrm -rf /\n```\n<!-- test: run -->\n```sh\na\n\nb\n```\n\n<!-- test: output, numbers vary -->\n```text\n1\n```\n";
        let steps = read(text).unwrap();
        let output = Step::Output { line: 12, text: "1\n".into(), numbers_vary: true };
        assert_eq!(steps, [Step::Run { line: 5, code: "a\n\nb\n".into() }, output]);
    }

    #[test]
    fn a_wrong_mark_is_a_problem_with_its_line() {
        for (text, problem) in [
            ("<!-- test: ran -->\n```sh\n```\n", "1: the mark 'ran' is not known"),
            ("\n<!-- test: run -->\n\n```sh\n```\n", "2: after the mark there is no fenced block"),
            ("<!-- test: output -->\n```\nx\n```\n", "1: this output has no block before it that is run"),
        ] {
            assert_eq!(read(text).unwrap_err(), problem);
        }
    }

    #[test]
    fn an_output_is_compared_line_by_line() {
        for (shown, printed, same_as_shown, same_but_for_numbers) in [
            ("a\nb\n", "a  \nb\n\n", true, true),
            ("a\n", "a\nb\n", false, false),
            ("a\n…\nd\n", "a\nb\nc\nd\n", true, true),
            ("…\n", "", true, true),
            ("7 events in 1.5 s", "12 events in 10.25 s", false, true),
            ("| n |\n|---|\n| 1 |", "| n    |\n|------|\n| 1500 |", false, true),
            ("7 events", "7 records", false, false),
            ("took 1,200,300", "took 12", false, true),
        ] {
            assert_eq!(same(shown, printed, false), same_as_shown, "{shown} {printed}");
            assert_eq!(same(shown, printed, true), same_but_for_numbers, "{shown} {printed}");
        }
    }
}
