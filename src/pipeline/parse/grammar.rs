//! The whole grammar, key by key: each has a test of its effect, or lint refuses it by name.

use std::collections::BTreeSet;
use std::path::Path;

use super::decoder::Decoder;
use crate::pipeline::code::Code;
use crate::pipeline::{Pipeline, RunnerSpec, Source, runner, yaml};

/// What becomes of a key of the grammar.
enum Fate {
    /// This test sees its effect: a file below the root of the repository, and a function in it.
    Effect(&'static str, &'static str),
    /// Lint refuses this file for it.
    Refused(&'static str),
}

use Fate::{Effect, Refused};

const PLANS: Fate = Effect("src/pipeline/parse/tests.rs", "plans");
const READ: Fate = Effect("src/pipeline/parse/tests.rs", "a_round_is_read_whole");
const RETRIED: Fate =
    Effect("src/job/tests.rs", "a_step_is_tried_again_by_fault_and_no_more_often_than_told");
const SCHEDULED: &str = "src/schedule/tests.rs";
const TICKS: &str = "src/schedule/timetable/tests.rs";
const GROUPS: &str = "tests/integration/groups.rs";
const FLOOR: &str = "src/pipeline/floor.rs";
const MACHINE: &str = "src/judge/machine.rs";
const STEPS: &str = "src/job/tests.rs";

const KEYS: &[(&str, &str, Fate)] = &[
    ("pipeline", "name", PLANS),
    ("pipeline", "run-name", Effect("tests/integration/cli.rs", "a_round_is_called_as_its_pipeline_says")),
    ("pipeline", "on", PLANS),
    ("pipeline", "env", Effect(STEPS, "a_step_sees_the_environment_of_all_levels")),
    ("pipeline", "defaults", Effect(STEPS, "a_job_that_takes_too_long_ends")),
    ("pipeline", "concurrency", Effect(GROUPS, "of_the_rounds_that_wait_the_newest_stays")),
    ("pipeline", "jobs", PLANS),
    ("concurrency", "group", Effect(GROUPS, "rounds_of_other_groups_do_not_wait")),
    ("concurrency", "queue", Effect(GROUPS, "rounds_of_a_group_run_in_the_order_they_came")),
    (
        "concurrency",
        "cancel-in-progress",
        Effect(GROUPS, "a_new_round_can_take_the_place_of_the_running_one"),
    ),
    ("on", "schedule", Effect(TICKS, "a_tick_fires_once_in_its_minute")),
    (
        "on",
        "failure",
        Effect("tests/integration/schedule.rs", "somebody_is_told_of_a_round_that_is_not_done"),
    ),
    (
        "failure",
        "run",
        Effect("tests/integration/schedule.rs", "somebody_is_told_of_a_round_that_is_not_done"),
    ),
    ("schedule", "cron", Effect(TICKS, "a_tick_fires_once_in_its_minute")),
    (
        "schedule",
        "timezone",
        Effect(TICKS, "ten_thousand_ticks_under_crashes_and_clock_jumps_are_each_explained"),
    ),
    (
        "schedule",
        "overlap",
        Effect(TICKS, "a_running_round_lets_the_next_tick_be_skipped_wait_or_take_its_place"),
    ),
    (
        "schedule",
        "inputs",
        Effect("tests/integration/schedule.rs", "a_round_knows_its_tick_and_the_inputs_of_its_schedule"),
    ),
    ("schedule", "catch-up", Effect(TICKS, "missed_ticks_are_made_up_for_as_the_schedule_says")),
    (
        "schedule",
        "deadline",
        Effect(TICKS, "a_round_is_not_taken_up_after_its_deadline_or_when_it_was_cancelled"),
    ),
    ("schedule", "jitter", Effect(TICKS, "jitter_is_the_ticks_own")),
    ("on", "dispatch", PLANS),
    ("on", "workflow_dispatch", Effect("src/pipeline/parse/tests.rs", "triggers")),
    ("dispatch", "inputs", PLANS),
    ("input", "type", READ),
    ("input", "options", READ),
    ("input", "default", READ),
    ("input", "required", Effect("src/pipeline/parse/tests.rs", "a_round_is_read_whole")),
    ("input", "description", PLANS),
    ("defaults", "run", Effect("src/pipeline/parse/tests.rs", "keys_and_types")),
    ("defaults", "timeout", Effect(STEPS, "a_job_that_takes_too_long_ends")),
    ("defaults", "timeout-minutes", Effect(STEPS, "a_job_that_takes_too_long_ends")),
    ("defaults.run", "shell", Effect("src/pipeline/parse/tests.rs", "keys_and_types")),
    ("job", "name", PLANS),
    ("job", "needs", Effect(SCHEDULED, "a_failed_need_skips_what_does_not_ask_for_it")),
    ("job", "if", Effect(SCHEDULED, "a_failed_need_skips_what_does_not_ask_for_it")),
    ("job", "runs-on", Effect(SCHEDULED, "a_job_runs_where_its_labels_are")),
    ("job", "strategy", Effect(SCHEDULED, "a_sequence_runs_in_order_and_others_beside_it")),
    ("job", "env", Effect(STEPS, "a_step_sees_the_environment_of_all_levels")),
    ("job", "outputs", Effect(STEPS, "a_step_sees_the_environment_of_all_levels")),
    ("job", "timeout", Effect(STEPS, "a_job_that_takes_too_long_ends")),
    ("job", "timeout-minutes", Effect(STEPS, "a_job_that_takes_too_long_ends")),
    ("job", "retry", Effect(SCHEDULED, "an_infrastructure_fault_is_tried_again_and_a_submissions_is_not")),
    ("job", "continue-on-error", Effect(SCHEDULED, "a_tolerated_failure_lets_the_round_go_on_leg_by_leg")),
    ("job", "steps", PLANS),
    ("strategy", "matrix", Effect(SCHEDULED, "a_sequence_runs_in_order_and_others_beside_it")),
    ("strategy", "key", Effect(SCHEDULED, "a_sequence_runs_in_order_and_others_beside_it")),
    ("strategy", "sequence", Effect(SCHEDULED, "a_sequence_runs_in_order_and_others_beside_it")),
    ("strategy", "max-parallel", Effect(SCHEDULED, "every_round_ends_within_its_limits")),
    ("strategy", "fail-fast", Effect(SCHEDULED, "failing_fast_stops_the_other_legs")),
    ("strategy", "order", Effect(SCHEDULED, "a_shuffled_order_is_the_seeds")),
    ("strategy", "allow-empty", Effect(SCHEDULED, "an_empty_matrix_is_skipped_and_a_bad_one_fails")),
    ("output", "type", Effect(STEPS, "a_step_sees_the_environment_of_all_levels")),
    ("output", "value", Effect(STEPS, "a_step_sees_the_environment_of_all_levels")),
    ("retry", "max", RETRIED),
    ("retry", "on", RETRIED),
    ("retry", "backoff", RETRIED),
    ("backoff", "kind", READ),
    ("backoff", "delay", READ),
    ("backoff", "max-delay", RETRIED),
    ("step", "id", Effect(STEPS, "a_step_sees_the_environment_of_all_levels")),
    ("step", "name", PLANS),
    ("step", "if", Effect(STEPS, "after_a_cancellation_only_what_insists_runs")),
    ("step", "env", Effect(STEPS, "a_step_sees_the_environment_of_all_levels")),
    ("step", "timeout", Effect(STEPS, "a_step_that_takes_too_long_ends")),
    ("step", "timeout-minutes", Effect(STEPS, "a_step_that_takes_too_long_ends")),
    ("step", "continue-on-error", Effect(STEPS, "a_tolerated_failure_lets_the_job_go_on")),
    ("step", "retry", RETRIED),
    ("step", "uses", PLANS),
    ("step", "with", Effect("src/pipeline/parse/tests.rs", "stage_inputs")),
    ("step", "run", Effect(STEPS, "a_step_sees_the_environment_of_all_levels")),
    ("step", "shell", Effect("src/pipeline/parse/tests.rs", "keys_and_types")),
    ("runner", "name", Effect("src/schedule/placement.rs", "labels_must_all_match")),
    ("runner", "labels", Effect("src/schedule/placement.rs", "labels_must_all_match")),
    ("runner", "place", Refused("name: r\nengine: docker\nplace: ssh\n")),
    ("runner", "engine", Effect("tests/e2e/demo.rs", "the_demo_round_ends_as_described_and_again_the_same")),
    (
        "runner",
        "machine",
        Effect("tests/e2e/gpus.rs", "a_read_is_void_where_its_gpus_are_not_what_they_were"),
    ),
    (
        "runner",
        "model-dir",
        Effect("tests/e2e/demo.rs", "the_demo_round_ends_as_described_and_again_the_same"),
    ),
    (
        "runner",
        "limits",
        Effect("src/adapters/docker/tests.rs", "a_container_is_created_with_everything_closed"),
    ),
    (
        "runner",
        "runtime",
        Effect("src/adapters/docker/tests.rs", "gpus_runtime_and_processors_are_asked_for_by_name"),
    ),
    (
        "runner",
        "gpus",
        Effect("src/adapters/docker/tests.rs", "gpus_runtime_and_processors_are_asked_for_by_name"),
    ),
    ("runner", "capacity", Effect(SCHEDULED, "every_round_ends_within_its_limits")),
    ("runner", "images", Effect("tests/e2e/demo.rs", "the_demo_round_ends_as_described_and_again_the_same")),
    ("runner", "floor", Effect("src/stages/benchmark.rs", "a_read_keeps_the_floor_of_its_runner")),
    ("floor", "facts", Effect("src/stages/benchmark.rs", "the_reference_model_has_a_floor_on_this_machine")),
    ("floor", "parameters", Effect(FLOOR, "the_facts_are_read_with_their_units")),
    ("floor", "bytes-per-parameter", Effect(FLOOR, "the_facts_are_read_with_their_units")),
    ("floor", "gpus", Effect(FLOOR, "the_facts_are_read_with_their_units")),
    ("floor", "gpu-cache", Effect(FLOOR, "the_facts_are_read_with_their_units")),
    ("floor", "gpu-bandwidth", Effect(FLOOR, "the_facts_are_read_with_their_units")),
    ("floor", "gpu-compute", Effect(FLOOR, "the_facts_are_read_with_their_units")),
    ("floor", "operations-per-token", Effect(FLOOR, "the_facts_are_read_with_their_units")),
    ("floor", "longest-draft", Effect(FLOOR, "the_facts_are_read_with_their_units")),
    (
        "limits",
        "cpus",
        Effect("src/adapters/docker/tests.rs", "a_container_is_created_with_everything_closed"),
    ),
    (
        "limits",
        "cpuset",
        Effect("src/adapters/docker/tests.rs", "gpus_runtime_and_processors_are_asked_for_by_name"),
    ),
    (
        "limits",
        "memory-mib",
        Effect("src/adapters/docker/tests.rs", "a_container_is_created_with_everything_closed"),
    ),
    (
        "limits",
        "pids",
        Effect("src/adapters/docker/tests.rs", "a_container_is_created_with_everything_closed"),
    ),
    (
        "limits",
        "shm-mib",
        Effect("src/adapters/docker/tests.rs", "a_container_is_created_with_everything_closed"),
    ),
    (
        "limits",
        "tmpfs-mib",
        Effect("src/adapters/docker/tests.rs", "a_container_is_created_with_everything_closed"),
    ),
    (
        "limits",
        "image-mib",
        Effect("src/adapters/docker/tests.rs", "an_image_larger_than_the_runner_allows_is_refused"),
    ),
    (
        "limits",
        "kept-images",
        Effect("src/adapters/docker/tests.rs", "the_images_that_were_not_used_for_longest_go_first"),
    ),
    ("machine", "gpus", Effect(MACHINE, "a_machine_is_what_its_file_says")),
    ("machine", "gpu-model", Effect(MACHINE, "a_machine_is_what_its_file_says")),
    ("machine", "gpu-memory-gib", Effect(MACHINE, "a_machine_is_what_its_file_says")),
    ("limits", "log-kib", Effect("tests/integration/process.rs", "a_flood_of_log_is_cut_and_its_end_known")),
];

/// Texts of files that together show every mapping of the grammar.
const PIPELINES: &[&str] = &[
    include_str!("../../../tests/fixtures/pipeline/round.yml"),
    "defaults: {run: {shell: bash}}\non: {dispatch: {inputs: {x: {type: string}}}}\njobs: {a: {steps: [{run: echo}]}}\n",
    "concurrency: {group: x}\non: {schedule: [{cron: '0 0 * * *'}], failure: {run: 'true'}}\njobs: {a: {steps: [{run: echo}]}}\n",
];
const RUNNER: &str = "name: r\nengine: docker\nmachine: {gpus: 1}\nlimits: {cpus: 1}\nfloor: {gpus: 1}\n";

/// The kind of a mapping, without the names in it: `job` for "job `rank`", `strategy` for "`strategy` of job `rank`".
pub(super) fn kind(what: &str) -> String {
    let what = what.trim_start_matches("the ").trim_start_matches("a ");
    match what.strip_prefix('`') {
        Some(quoted) => quoted.split('`').next().unwrap_or_default().to_owned(),
        None => what.split([' ', '`']).next().unwrap_or_default().to_owned(),
    }
}

#[test]
fn every_key_has_an_effect_or_is_refused() {
    let mut asked = BTreeSet::new();
    for text in PIPELINES {
        let source = Source::new("t.yml", text);
        let mut decoder = Decoder::new(&source);
        assert!(super::pipeline(&mut decoder, &yaml::parse(&source).unwrap()).is_some());
        asked.append(&mut decoder.asked);
    }
    let source = Source::new("r.yml", RUNNER);
    let mut decoder = Decoder::new(&source);
    assert!(runner::runner(&mut decoder, &yaml::parse(&source).unwrap()).is_some());
    asked.append(&mut decoder.asked);

    let asked: Vec<(&str, &str)> = asked.iter().map(|(mapping, key)| (mapping.as_str(), *key)).collect();
    let mut known: Vec<(&str, &str)> = KEYS.iter().map(|(mapping, key, _)| (*mapping, *key)).collect();
    known.sort_unstable();
    assert_eq!(asked, known, "a key of the grammar stands in `KEYS`, with its effect or its refusal");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the test looks into the sources for other tests")]
fn every_effect_has_its_test() {
    for (mapping, key, fate) in KEYS {
        let Effect(file, function) = fate else { continue };
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert!(text.contains(&format!("fn {function}(")), "{mapping}.{key}: no test `{function}` in {file}");
    }
}

#[test]
fn what_has_no_effect_is_refused_by_name() {
    for (mapping, key, fate) in KEYS {
        let Refused(text) = fate else { continue };
        let source = Source::new("t.yml", text);
        let is_runner = ["runner", "limits"].contains(mapping);
        let found = if is_runner {
            RunnerSpec::parse(&source).map(|_| ()).unwrap_err()
        } else {
            Pipeline::parse(&source).map(|_| ()).unwrap_err()
        };
        let [finding] = found.items.as_slice() else { panic!("{mapping}.{key}: {found}") };
        assert_eq!(finding.code, Code::Unsupported, "{mapping}.{key}");
        assert!(finding.message.contains("not supported yet"), "{}", finding.message);
        assert!(finding.message.contains(key), "{}", finding.message);
    }
}
