//! Whole pipelines: what is read, and what is reported.

use std::fmt::Write as _;
use std::time::Duration;

use proptest::prelude::*;

use crate::pipeline::contexts::{ContextName, KnownContexts};
use crate::pipeline::definition::{BackoffKind, FaultName, InputType, LegOrder, OutputType, StepAction};
use crate::pipeline::expr::{Contexts, Value};
use crate::pipeline::plan::Legs;
use crate::pipeline::stage::StageName;
use crate::pipeline::{Color, Parsed, Pipeline, Plan, Source};

const ROUND: &str = include_str!("../../../tests/fixtures/pipeline/round.yml");
const DIGEST: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";
const BROKEN: &str = include_str!("../../../tests/fixtures/pipeline/broken.yml");

fn read(text: &str) -> Parsed<Pipeline> {
    Pipeline::parse(&Source::new("pipelines/t.yml", text)).unwrap_or_else(|found| panic!("{found}"))
}

fn known(inputs: Value) -> KnownContexts {
    KnownContexts::default().with(ContextName::Inputs, inputs)
}

/// The codes and lines of all findings, errors or not.
fn codes(text: &str) -> Vec<(&'static str, usize)> {
    let source = Source::new("t.yml", text);
    let found = match Pipeline::parse(&source) {
        Ok(parsed) => parsed.warnings,
        Err(found) => found,
    };
    found.items.iter().map(|item| (item.code.as_str(), source.line_column(item.span.start).line)).collect()
}

/// Checks the findings in a job: `body` is the text of one called `a`, from its second line on; lines count in it.
fn check(body: &str, expected: &[(&str, usize)]) {
    let mut text = "jobs:\n  a:\n".to_owned();
    for line in body.lines() {
        let _ = writeln!(text, "    {line}");
    }
    let found: Vec<_> = codes(&text).into_iter().map(|(code, line)| (code, line.saturating_sub(2))).collect();
    assert_eq!(found, expected, "{text}");
}

#[test]
fn a_round_is_read_whole() {
    let parsed = read(ROUND);
    assert_eq!(parsed.warnings.items, []);
    let round = parsed.value;
    assert_eq!(round.name, "evaluation-round");
    assert_eq!(round.inputs[2].kind, InputType::Choice(vec!["smoke".to_owned(), "full".to_owned()]));
    let measure = round.job("measure").unwrap();
    let strategy = measure.strategy.as_ref().unwrap();
    assert_eq!(
        (strategy.max_parallel, strategy.fail_fast, strategy.order),
        (Some(4), false, LegOrder::Shuffle)
    );
    assert!(strategy.allow_empty && strategy.key.is_some() && strategy.sequence.is_some());
    assert_eq!((measure.retry.max, measure.retry.on.as_slice()), (2, [FaultName::Infra].as_slice()));
    assert_eq!(measure.retry.backoff.kind, BackoffKind::Exponential);
    assert_eq!(measure.retry.backoff.delay_before(2), Duration::from_secs(40));
    assert_eq!(measure.timeout, Some(Duration::from_mins(90)));
    assert_eq!(measure.outputs[0].kind, OutputType::Number);
    assert!(
        matches!(&measure.steps[1].action, StepAction::Stage { stage: StageName::Boot, with, .. } if with.len() == 2)
    );
    let inputs = round.inputs(&[("netuid".to_owned(), "3".to_owned())]).unwrap();
    assert_eq!(inputs.get("netuid"), Some(&Value::Number(3.0)));
    assert!(round.inputs(&[("netuid".to_owned(), "x".to_owned())]).is_err());
    assert!(
        round.inputs(&[("netuit".to_owned(), "1".to_owned())]).unwrap_err().to_string().contains("`netuid`")
    );
}

#[test]
fn everything_wrong_is_drawn_in_one_pass() {
    let found = Pipeline::parse(&Source::new("pipelines/broken.yml", BROKEN)).unwrap_err();
    insta::assert_snapshot!(found.render(Color::Never));
    insta::assert_snapshot!("a_finding_as_json", serde_json::to_string_pretty(&found.to_json()[0]).unwrap());
}

#[test]
fn keys_and_types() {
    check("steps:\n  - run: echo", &[]);
    check("stepz:\n  - run: echo", &[("L003", 0), ("L002", 1)]);
    check("steps:\n  - run: echo\ncontainer: x", &[("L002", 3)]);
    check("steps: []", &[("L006", 1)]);
    check("steps: {}", &[("L005", 1)]);
    check("needs: []\nsteps:\n  - run: echo", &[("L006", 1)]);
    check("steps:\n  - run: echo\n    timeout: 5", &[("L005", 3)]);
    check("steps:\n  - run: echo\n    timeout: 5x", &[("L005", 3)]);
    check("timeout: 1h\ntimeout-minutes: 5\nsteps:\n  - run: echo", &[("L009", 2)]);
    check("timeout-minutes: 1\nsteps:\n  - run: echo\n    timeout: 2m", &[("L054", 3)]);
    check("strategy:\n  matrix:\n    a: [1]\n  max-parallel: four\nsteps:\n  - run: echo", &[("L005", 4)]);
    check("strategy:\n  fail-fast: no\n  matrix:\n    a: [1]\nsteps:\n  - run: echo", &[("L005", 2)]);
    check("steps:\n  - id: b.c\n    run: echo", &[("L010", 2)]);
    check("steps:\n  - id: b\n    run: echo\n  - id: B\n    run: echo", &[("L011", 4)]);
    check("steps:\n  - uses: boot\n    run: echo", &[("L024", 3)]);
    check("steps:\n  - name: x", &[("L003", 2)]);
    check("steps:\n  - run: echo\n    with: {a: 1}", &[("L002", 3)]);
    check("steps:\n  - uses: bot", &[("L019", 2)]);
    check("steps:\n  - uses: boot@1", &[("L019", 2)]);
    check("steps:\n  - run: echo\n    shell: pwsh", &[("L005", 3)]);
    check("retry: {max: 1, on: [submission]}\nsteps:\n  - run: echo", &[("L048", 1)]);
    check("retry: {max: 1, on: [infr]}\nsteps:\n  - run: echo", &[("L005", 1)]);
    check("- a", &[("L005", 1)]);
}

#[test]
fn stage_inputs() {
    check("steps:\n  - uses: plan-reads\n    with: {submissions: []}", &[("L021", 2)]);
    check(&format!("steps:\n  - uses: pull\n    with: {{image: , digest: '{DIGEST}'}}"), &[("L021", 2)]);
    check(
        &format!("steps:\n  - uses: pull\n    with: {{image: x, digest: '{DIGEST}', imge: y}}"),
        &[("L022", 3)],
    );
    check(
        "steps:\n  - uses: pull\n    with: {image: 'A:latest', digest: 'sha256:12'}",
        &[("L023", 3), ("L023", 3)],
    );
    check("steps:\n  - uses: warm-up\n    with: {endpoint: e, requests: sixty}", &[("L023", 3)]);
    check("steps:\n  - uses: warm-up\n    with: {endpoint: e, requests: '60', deadline: 5}", &[("L023", 3)]);
    check("steps:\n  - uses: warm-up\n    with: {endpoint: [1]}", &[("L023", 3)]);
    check("steps:\n  - uses: warm-up\n    with: {endpoint: e, requests: '${{ env.X }}'}", &[]);
    check(
        "steps:\n  - uses: rank\n    with: {commitments: '${{ env.C }}', reads: [], verdicts: '${{ env.V }}', score: {margin: 0.02}}",
        &[],
    );
}

#[test]
fn a_misspelt_threshold_is_found_before_anything_runs() {
    let check = |with: &str, expected: &str| {
        let text = format!(
            "jobs:\n  a:\n    steps:\n      - uses: rank\n        with:\n          {with}\n          commitments: ${{{{ env.C }}}}\n          reads: []\n          verdicts: ${{{{ env.V }}}}\n"
        );
        let found = Pipeline::parse(&Source::new("t.yml", &text)).map(|_| ()).unwrap_err();
        let [finding] = found.items.as_slice() else { panic!("{found}") };
        assert!(finding.message.starts_with(expected), "{}", finding.message);
    };
    check("score: { margn: 0.01 }", "`score` of `rank`: unknown field `margn`, expected one of `weights`, ");
    check("score: { margin: wide }", "`score` of `rank`: invalid type: string \"wide\"");
    check("rank: { split: [0.9, 0.9] }", "`rank` of `rank`: ");
}

#[test]
fn expressions_in_their_places() {
    let step = |text: &str| {
        format!(
            "steps:\n  - {{id: boot, uses: boot, with: {{image: a, digest: '{DIGEST}'}}}}\n  - uses: benchmark\n    with:\n      read: ${{{{ env.READ }}}}\n      {text}"
        )
    };
    check(&step("endpoint: ${{ steps.boot.outputs.endpoint }}"), &[]);
    check(&step("endpoint: ${{ steps.boot.outputs.endpont }}"), &[("L028", 6)]);
    check(&step("endpoint: ${{ steps.boot.output.endpoint }}"), &[("L028", 6)]);
    check(&step("endpoint: ${{ steps.bot.outputs.endpoint }}"), &[("L028", 6)]);
    check(&step("endpoint: ${{ step.boot }}"), &[("L027", 6)]);
    check(&step("endpoint: ${{ github.sha }}"), &[("L027", 6)]);
    check(&step("endpoint: ${{ matrix.x }}"), &[("L029", 6)]);
    check(&step("endpoint: ${{ inputs.x }}"), &[("L028", 6)]);
    check(&step("endpoint: ${{ needs.b.result }}"), &[("L028", 6)]);
    check(&step("endpoint: ${{ run.sed }}"), &[("L028", 6)]);
    check(&step("endpoint: ${{ env['X'] }}"), &[]);
    check(&step("endpoint: ${{ steps[env.X].outputs[inputs.y] }}"), &[("L028", 6)]);
    check(&step("endpoint: ${{ 1 + 1 }}"), &[("L025", 6)]);
    check(&step("endpoint: '${{ \"x\" }}'"), &[("L026", 6)]);
    check(&step("endpoint: ${{ startWith('a', 'b') }}"), &[("L030", 6)]);
    check(&step("endpoint: ${{ startsWith('a') }}"), &[("L030", 6)]);
    check(&step("endpoint: ${{ always() }}"), &[("L030", 6)]);
    check(&step("endpoint: ${{ }}"), &[("L025", 6)]);
    check(&step("endpoint: ${{ env.x"), &[("L025", 6)]);
    check("if: steps.x.outputs.y\nsteps:\n  - run: echo", &[("L029", 1)]);
    check("if: ${{ always() }} \nsteps:\n  - run: echo", &[]);
    check("if: '${{ always() }} '\nsteps:\n  - run: echo", &[("L036", 1)]);
    check("if: inputs.x == 1 || failure()\nsteps:\n  - run: echo", &[("L028", 1)]);
    check("steps:\n  - if: steps.later.outcome\n    run: echo\n  - id: later\n    run: echo", &[("L028", 2)]);
    check("outputs:\n  x: ${{ steps.s.outputs.anything }}\nsteps:\n  - id: s\n    run: echo", &[]);
}

#[test]
fn outside_data_stays_out_of_scripts() {
    let matrix = "strategy:\n  matrix:\n    a: [x]\nsteps:\n  - ";
    check(&format!("{matrix}run: echo ${{{{ matrix.a }}}}"), &[("L041", 5)]);
    check(
        &format!("{matrix}run: |\n      one\n      echo ${{{{ format('{{0}}', matrix.a) }}}}"),
        &[("L041", 7)],
    );
    check(&format!("{matrix}run: echo ${{{{ run.id }}}}"), &[]);
    check(&format!("{matrix}run: echo \"$A\"\n    env: {{A: '${{{{ matrix.a }}}}'}}"), &[]);
    check(
        &format!("{matrix}run: echo ${{{{ env.A }}}}\n    env: {{A: '${{{{ matrix.a }}}}'}}"),
        &[("L041", 5)],
    );
    check(&format!("{matrix}run: echo ${{{{ env.A }}}}\n    env: {{A: literal}}"), &[]);
}

#[test]
fn matrices() {
    let steps = "steps:\n  - run: echo";
    check(&format!("strategy: {{matrix: {{a: [1, 2]}}}}\n{steps}"), &[]);
    check(&format!("strategy: {{matrix: {{a: [{{b: 1}}]}}}}\n{steps}"), &[("L044", 1)]);
    check(
        &format!("strategy: {{matrix: {{a: '${{{{ inputs.x }}}}'}}}}\n{steps}"),
        &[("L044", 1), ("L028", 1)],
    );
    check(&format!("strategy: {{matrix: {{a: [{{b: 1}}]}}, key: '${{{{ matrix.a.b }}}}'}}\n{steps}"), &[]);
    check(&format!("strategy: {{matrix: {{a: [1]}}, key: '${{{{ matrix.b }}}}'}}\n{steps}"), &[("L028", 1)]);
    check(&format!("strategy: {{matrix: {{a: [1], exclude: [{{b: 1}}]}}}}\n{steps}"), &[("L059", 1)]);
    check(&format!("strategy: {{matrix: {{a: []}}}}\n{steps}"), &[("L059", 1)]);
    check(&format!("strategy: {{matrix: {{a: x}}}}\n{steps}"), &[("L059", 1)]);
    check(&format!("strategy: {{matrix: {{a: [1, '1']}}}}\n{steps}"), &[("L044", 1)]);
    check(&format!("strategy: {{matrix: {{include: [{{a: 1, b: 2}}, {{a: 2}}]}}}}\n{steps}"), &[]);
    check(&format!("strategy: {{matrix: [1]}}\n{steps}"), &[("L005", 1)]);
    check(&format!("strategy: {{matrix: x}}\n{steps}"), &[("L005", 1)]);
    check(&format!("strategy: {{max-parallel: 1}}\n{steps}"), &[("L003", 1)]);
}

#[test]
fn needs() {
    let job = |needs: &str, uses: &str| {
        format!(
            "jobs:\n  a:\n    needs: {needs}\n    if: {uses}\n    steps: [{{run: echo}}]\n  b:\n    strategy: {{matrix: {{x: [1]}}}}\n    outputs: {{y: z}}\n    steps: [{{run: echo}}]\n  c:\n    outputs: {{y: z}}\n    steps: [{{run: echo}}]\n"
        )
    };
    let check = |needs: &str, uses: &str, expected: &[(&str, usize)]| {
        assert_eq!(codes(&job(needs, uses)), expected, "{needs} {uses}");
    };
    check("[b, c]", "needs.c.outputs.y", &[]);
    check("c", "needs.c.outputs.z", &[("L028", 4)]);
    check("c", "needs.b.result == 'success'", &[("L028", 4)]);
    check("b", "needs.b.outputs.y", &[("L040", 4)]);
    check("b", "length(needs.b.legs.*.outputs.y) > 0", &[]);
    check("d", "always()", &[("L012", 3)]);
    check("[c, c]", "always()", &[("L014", 3)]);
    check("a", "always()", &[("L013", 3)]);
    check("c", "failure('b')", &[("L028", 4)]);
}

#[test]
fn triggers() {
    let check = |on: &str, expected: &[(&str, usize)]| {
        let text = format!("on:\n  {on}\njobs:\n  a:\n    steps: [{{run: echo}}]\n");
        assert_eq!(codes(&text), expected, "{text}");
    };
    check("dispatch:", &[]);
    check("workflow_dispatch:\n    inputs: {x: {type: number, default: 1}}", &[]);
    check("schedule: [{cron: '0 0 * * *', timezone: Europe/Berlin}]", &[]);
    let wrong = [("L045", 2), ("L046", 2)];
    check("schedule: [{cron: '0 24 * * *', timezone: Europe/Berln}]", &wrong);
    check("schedule: [{timezone: UTC}]", &[("L003", 2)]);
    check("dispatch: {inputs: {x: {type: number, default: many}}}", &[("L057", 2)]);
    check("dispatch: {inputs: {x: {type: choice, options: [a], default: b}}}", &[("L057", 2)]);
    check("dispatch: {inputs: {x: {type: text}}}", &[("L005", 2)]);
    check("push:", &[("L002", 2)]);
    assert_eq!(codes("on: [dispatch, push]\njobs:\n  a:\n    steps: [{run: echo}]\n"), [("L005", 1)]);
}

#[test]
fn plans() {
    let round = read(ROUND).value;
    let inputs = round.inputs(&[]).unwrap();
    let plan = Plan::new(&round, &known(inputs)).unwrap();
    insta::assert_snapshot!("plan_text", plan.text());
    insta::assert_snapshot!("plan_mermaid", plan.mermaid());
    let matrix = "jobs:\n  a:\n    strategy: {matrix: {x: [1, 2], y: ['${{ inputs.z }}']}, key: 'k${{ matrix.x }}'}\n    steps: [{run: echo}]\non: {dispatch: {inputs: {z: }}}\n";
    let pipeline = read(matrix).value;
    let full = Plan::new(&pipeline, &known(pipeline.inputs(&[]).unwrap())).unwrap();
    assert!(matches!(&full.jobs[0].legs, Legs::Static(legs) if legs[1].key == "k2"), "{full:?}");
    let unknown = Plan::new(&pipeline, &KnownContexts::default()).unwrap();
    assert_eq!(unknown.jobs[0].legs, Legs::Dynamic(vec!["inputs.z".to_owned()]));
}

#[test]
fn failures_at_run_time_are_drawn_over_the_file() {
    let pipeline =
        read("jobs:\n  a:\n    steps:\n      - run: echo\n        env:\n          X: ${{ env.Y.z }}\n").value;
    let template = &pipeline.jobs[0].steps[0].env[0].1;
    let error = template.text(&Contexts::new().with("env", serde_json::json!({"YY": 1}))).unwrap_err();
    let drawn = crate::pipeline::template::diagnostic(&error).render(&pipeline.source, Color::Never);
    insta::assert_snapshot!(drawn, @r"
    error[E001]: `env.Y` is absent
     --> pipelines/t.yml:6:18
      |
    6 |           X: ${{ env.Y.z }}
      |                  ^^^^^
      |
      = help: did you mean `YY`?
    ");
}

#[test]
fn every_deletion_of_one_character_has_a_place() {
    let places: Vec<usize> = ROUND.char_indices().map(|(place, _)| place).step_by(7).collect();
    for place in places {
        let mut text = ROUND.to_owned();
        text.remove(place);
        if let Err(found) = Pipeline::parse(&Source::new("t.yml", &text)) {
            assert!(found.items.iter().all(|item| item.span.end <= text.len() + 1), "deleted at {place}");
            let _ = found.render(Color::Never);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn never_panics(text in any::<String>()) {
        let _ = Pipeline::parse(&Source::new("t.yml", &text)).map_err(|found| found.render(Color::Never));
    }

    #[test]
    fn never_panics_on_mixtures(places in proptest::collection::vec((0..ROUND.len(), 0..40usize), 1..30)) {
        let mut text = String::new();
        for (start, length) in places {
            text.push_str(ROUND.get(start..start + length).unwrap_or("\n"));
        }
        let _ = Pipeline::parse(&Source::new("t.yml", &text)).map_err(|found| found.render(Color::Never));
    }
}
