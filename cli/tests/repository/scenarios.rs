//! The page of scenarios is true: every line names tests that exist, or says why there is none.

use crate::{path, read};

const PAGE: &str = "docs/reference/scenarios.md";
/// How a line begins that no test shows.
const WITHOUT_TEST: &[&str] = &["Left out", "Not shown yet"];

#[test]
fn scenarios_are_shown_by_tests_that_exist() {
    let page = read(PAGE);
    let lines: Vec<&str> =
        page.lines().filter(|line| line.starts_with("| ") && !line.contains("Shown by")).collect();
    assert!(lines.len() > 50, "{} lines", lines.len());
    for line in lines {
        let shown_by = line.split(" | ").nth(1).unwrap_or_else(|| panic!("{PAGE}: one cell: {line}"));
        let quoted = shown_by.split('`').skip(1).step_by(2);
        let tests: Vec<_> = quoted.filter_map(|word| word.split_once("::")).collect();
        let has_reason = WITHOUT_TEST.iter().any(|words| shown_by.starts_with(words));
        assert!(has_reason || !tests.is_empty(), "{PAGE}: no test and no reason: {line}");
        for (file, test) in tests {
            assert_is_test(file, test);
        }
    }
}

fn assert_is_test(file: &str, test: &str) {
    assert!(path(file).exists(), "{PAGE}: {file} does not exist");
    // The end-to-end tests have a harness that runs what is listed, by that name.
    let mark = if file.starts_with("tests/") { format!("::{test}\"") } else { format!("fn {test}(") };
    assert!(read(file).contains(&mark), "{PAGE}: {file} has no test {test}");
}
