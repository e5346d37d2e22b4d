//! Pages that are made from the program stay what the program says.

use std::path::Path;

use cacheon::pipeline::stage::StageName;

/// Compares a page with what it must be; with `CACHEON_DOCS=accept` it is written.
fn check(page: &str, expected: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
    if std::env::var_os("CACHEON_DOCS").is_some_and(|value| value == "accept") {
        std::fs::write(&path, expected).expect("writes the page");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    let accept = "CACHEON_DOCS=accept cargo test --test integration docs::";
    assert!(found == expected, "`{page}` is not what the program says; to accept:\n\n    {accept}\n");
}

#[test]
fn every_stage_is_documented() {
    let mut page = "# Stages\n\nThe built-in actions that a step names by `uses:`, in the order of a round: what stands under `with:`, and what\n`steps.<id>.outputs` holds afterwards.\n".to_owned();
    for stage in StageName::ALL {
        page.push('\n');
        page.push_str(&stage.spec().markdown());
    }
    check("docs/stages.md", &page);
}
