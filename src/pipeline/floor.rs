//! `floor:` of a runner: the facts that the least time of an answer follows from, each within what machines are.
//!
//! What has a dimension is written with its unit, so that a slip of a thousand is seen. Deliberately absent: the floor
//! itself ([`judge::floor`](crate::judge::floor)).

use super::code::Code;
use super::diagnostic::Diagnostic;
use super::parse::decoder::{Decoder, Fields, Slot};
use super::yaml::Kind;
use crate::judge::Facts;

/// Where the facts of a runner come from.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FloorSource {
    /// The operator states them.
    Stated(Facts),
    /// Each read measures the processor that it runs on, and looks into the weights of its model.
    Measured {
        /// The longest draft that the rules allow, tokens; 0 where they allow no speculation.
        longest_draft: u32,
    },
}

/// A kind of number: its units with their scales, and between what it must lie.
struct Quantity {
    units: &'static [(&'static str, f64)],
    range: (f64, f64),
    /// What one would write, for messages.
    example: &'static str,
}

const PARAMETERS: Quantity = Quantity { units: &[], range: (1e3, 1e14), example: "71.46e9" };
const BYTES_PER_PARAMETER: Quantity = Quantity { units: &[], range: (0.05, 8.0), example: "1.32" };
const OPERATIONS: Quantity = Quantity { units: &[], range: (1e3, 2e14), example: "138.7e9" };
const CACHE: Quantity = Quantity {
    units: &[("B", 1.0), ("KB", 1e3), ("MB", 1e6), ("GB", 1e9), ("KiB", 1024.0), ("MiB", 1_048_576.0)],
    range: (0.0, 1e11),
    example: "132 MB",
};
const BANDWIDTH: Quantity = Quantity {
    units: &[("MB/s", 1e6), ("GB/s", 1e9), ("TB/s", 1e12)],
    range: (1e8, 1e15),
    example: "4.814 TB/s",
};
const COMPUTE: Quantity = Quantity {
    units: &[("GFLOP/s", 1e9), ("TFLOP/s", 1e12), ("PFLOP/s", 1e15)],
    range: (1e9, 1e19),
    example: "2141 TFLOP/s",
};
const GPUS: Quantity = Quantity { units: &[], range: (1.0, 4096.0), example: "4" };
const DRAFT: Quantity = Quantity { units: &[], range: (0.0, 4096.0), example: "3" };

/// Reads the floor of a runner.
pub(super) fn floor(decoder: &mut Decoder<'_>, slot: Slot<'_>) -> Option<FloorSource> {
    let mut fields = decoder.fields(slot.node, "`floor`", slot.key.span)?;
    let is_measured =
        fields.take("facts").and_then(|slot| decoder.word(slot, &[("stated", false), ("measured", true)]));
    if is_measured == Some(true) {
        let longest_draft = whole(decoder, &mut fields, ("longest-draft", &DRAFT));
        fields.finish(decoder);
        return Some(FloorSource::Measured { longest_draft: longest_draft? });
    }
    let operations = fields.require("operations-per-token", decoder);
    let read = [
        number(decoder, &mut fields, ("parameters", &PARAMETERS)),
        number(decoder, &mut fields, ("bytes-per-parameter", &BYTES_PER_PARAMETER)),
        number(decoder, &mut fields, ("gpu-cache", &CACHE)),
        number(decoder, &mut fields, ("gpu-bandwidth", &BANDWIDTH)),
        number(decoder, &mut fields, ("gpu-compute", &COMPUTE)),
        operations.and_then(|slot| quantity(decoder, slot, &OPERATIONS)),
    ];
    let gpus = whole(decoder, &mut fields, ("gpus", &GPUS));
    let longest_draft = whole(decoder, &mut fields, ("longest-draft", &DRAFT));
    fields.finish(decoder);
    let [
        parameters,
        bytes_per_parameter,
        gpu_cache_bytes,
        gpu_bytes_per_s,
        gpu_operations_per_s,
        operations_per_token,
    ] = read;
    let facts = Facts {
        parameters: parameters?,
        bytes_per_parameter: bytes_per_parameter?,
        gpus: gpus?,
        gpu_cache_bytes: gpu_cache_bytes?,
        gpu_bytes_per_s: gpu_bytes_per_s?,
        gpu_operations_per_s: gpu_operations_per_s?,
        operations_per_token: operations_per_token?,
        longest_draft: longest_draft?,
    };
    agree(decoder, &facts, (slot, operations?))
}

/// Refuses facts of which each is possible, and which cannot all be so.
fn agree(
    decoder: &mut Decoder<'_>,
    facts: &Facts,
    (floor, operations): (Slot<'_>, Slot<'_>),
) -> Option<FloorSource> {
    if facts.operations_per_token > 2.0 * facts.parameters {
        let message = format!(
            "`operations-per-token` is {:e}: at most one multiplication and one addition for each of the {:e} parameters, {:e}",
            facts.operations_per_token,
            facts.parameters,
            2.0 * facts.parameters
        );
        decoder.report(Diagnostic::error(Code::ImpossibleFacts, operations.underlined(), message));
        return None;
    }
    if facts.floor().pass_ns <= 0.0 {
        let message = "the caches hold the whole model, so that `gpu-bandwidth` bounds nothing and the floor is that of the arithmetic alone";
        decoder.report(Diagnostic::warning(Code::ImpossibleFacts, floor.key.span, message));
    }
    Some(FloorSource::Stated(facts.clone()))
}

fn number(
    decoder: &mut Decoder<'_>,
    fields: &mut Fields<'_>,
    (name, kind): (&'static str, &Quantity),
) -> Option<f64> {
    let slot = fields.require(name, decoder)?;
    quantity(decoder, slot, kind)
}

fn whole(
    decoder: &mut Decoder<'_>,
    fields: &mut Fields<'_>,
    (name, kind): (&'static str, &Quantity),
) -> Option<u32> {
    let slot = fields.require(name, decoder)?;
    if let Kind::Int(_) = slot.node.kind {
        return quantity(decoder, slot, kind).map(|value| value as u32);
    }
    let _: Option<u32> = decoder.integer(slot, kind.range.0 as i64);
    None
}

/// Reads a number with its unit, where its kind has any, within its range.
fn quantity(decoder: &mut Decoder<'_>, slot: Slot<'_>, kind: &Quantity) -> Option<f64> {
    let name = &slot.key.name;
    let units = || kind.units.iter().map(|(unit, _)| *unit).collect::<Vec<_>>().join(", ");
    let wanted = if kind.units.is_empty() {
        format!("`{name}` wants a number without a unit, such as `{}`", kind.example)
    } else {
        format!("`{name}` wants a number with one of the units {}, such as `{}`", units(), kind.example)
    };
    let text = match slot.node.kind {
        Kind::Str(_) | Kind::Int(_) | Kind::Float(_) => decoder.string(slot)?,
        _ => {
            decoder.report(Diagnostic::error(Code::WrongType, slot.underlined(), wanted));
            return None;
        }
    };
    // An exponent has a letter too: the longest beginning that is a number is the number.
    let ends = text.char_indices().map(|(at, _)| at).skip(1).chain([text.len()]);
    let parsed = ends.filter_map(|end| Some((text.get(..end)?.trim_end().parse::<f64>().ok()?, end))).last();
    let unit = |end: usize| text.get(end..).unwrap_or_default().trim();
    let scaled = parsed.and_then(|(number, end)| {
        if kind.units.is_empty() {
            return unit(end).is_empty().then_some(number);
        }
        kind.units.iter().find(|(known, _)| *known == unit(end)).map(|(_, scale)| number * scale)
    });
    let Some(value) = scaled.filter(|value| value.is_finite()) else {
        decoder.report(Diagnostic::error(Code::WrongType, slot.underlined(), wanted));
        return None;
    };
    let (least, most) = kind.range;
    if !(least..=most).contains(&value) {
        let base = kind.units.iter().find(|(_, scale)| *scale > 1.0).or(kind.units.first());
        let (unit, scale) = base.map_or(("", 1.0), |(unit, scale)| (*unit, *scale));
        let shown = |value: f64| format!("{:e} {unit}", value / scale).trim_end().to_owned();
        let message = format!(
            "`{name}` is {}, and no machine or model has less than {} or more than {}",
            shown(value),
            shown(least),
            shown(most)
        );
        decoder.report(Diagnostic::error(Code::ImpossibleFacts, slot.underlined(), message));
        return None;
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::diagnostic::Color;
    use crate::pipeline::runner::RunnerSpec;
    use crate::pipeline::source::Source;

    const H200: &str = "name: r
engine: docker
floor:
  parameters: 71.460e9
  bytes-per-parameter: 1.32
  gpus: 4
  gpu-cache: 132 MB
  gpu-bandwidth: 4.814 TB/s
  gpu-compute: 2141TFLOP/s
  operations-per-token: 138.7e9
  longest-draft: 3
";

    fn parsed(text: &str) -> Result<(Option<FloorSource>, String), String> {
        let parsed = RunnerSpec::parse(&Source::new("r.yml", text));
        let parsed = parsed.map_err(|found| found.render(Color::Never))?;
        Ok((parsed.value.floor, parsed.warnings.render(Color::Never)))
    }

    #[test]
    fn the_facts_are_read_with_their_units() {
        let Ok((Some(FloorSource::Stated(facts)), warnings)) = parsed(H200) else { panic!("no facts") };
        let expected = Facts {
            parameters: 71.460e9,
            bytes_per_parameter: 1.32,
            gpus: 4,
            gpu_cache_bytes: 132e6,
            gpu_bytes_per_s: 4.814e12,
            gpu_operations_per_s: 2.141e15,
            operations_per_token: 138.7e9,
            longest_draft: 3,
        };
        assert_eq!((facts.clone(), warnings.as_str()), (expected, ""));
        assert!((facts.floor().pass_ns / 1e6 - 4.87).abs() < 0.005);
        assert_eq!(parsed("name: r\nengine: docker\n").expect("a runner").0, None);
    }

    #[test]
    fn nonsense_is_refused_where_it_stands() {
        let check = |from: &str, to: &str, expected: &str| {
            let found = parsed(&H200.replace(from, to)).expect_err(to);
            assert!(found.contains(expected), "{to}: {found}");
        };
        let wants = "wants a number with one of the units MB/s, GB/s, TB/s, such as `4.814 TB/s`";
        for wrong in
            ["4.814e12", "4.814", "4.814 TB", "4.814 Tbit/s", "fast", "TB/s", "1e999 TB/s", "[1]", ""]
        {
            check("4.814 TB/s", wrong, wants);
        }
        check("4.814 TB/s", "0 TB/s", "`gpu-bandwidth` is 0e0 MB/s, and no machine or model has less");
        check("4.814 TB/s", "-4.8 TB/s", "L080");
        check("4.814 TB/s", "4814 TB/s", "or more than 1e9 MB/s");
        check("2141TFLOP/s", "2141 TOPS", "GFLOP/s, TFLOP/s, PFLOP/s");
        check("2141TFLOP/s", "0 PFLOP/s", "L080");
        check("132 MB", "-1 MB", "`gpu-cache` is -1e3 KB");
        check("71.460e9", "71.46 B", "`parameters` wants a number without a unit");
        check("71.460e9", "0", "`parameters` is 0e0");
        check("1.32", "16", "`bytes-per-parameter` is 1.6e1");
        check("1.32", ".nan", "`bytes-per-parameter` wants a number");
        check("gpus: 4", "gpus: 0", "`gpus` is 0e0");
        check("gpus: 4", "gpus: 2.5", "`gpus` wants an integer");
        check("longest-draft: 3", "longest-draft: -1", "`longest-draft` is -1e0");
        check("longest-draft: 3", "longest-draft: 99999999999", "`longest-draft` is 9.9999999999e10");
        check("  longest-draft: 3\n", "", "`floor` has no `longest-draft`");
        check("gpu-cache", "cpu-cache", "unknown key `cpu-cache`");
        check("138.7e9", "138.7e10", "at most one multiplication and one addition");
        check("floor:", "floor: {}\nlimits:", "`floor` is empty");
    }

    #[test]
    fn facts_can_be_measured_and_then_not_stated() {
        let text = "name: r\nengine: docker\nfloor: {facts: measured, longest-draft: 5}\n";
        let expected = FloorSource::Measured { longest_draft: 5 };
        assert_eq!(parsed(text).expect("a runner"), (Some(expected), String::new()));
        let found = parsed(&text.replace("5}", "5, gpus: 4}")).expect_err("both");
        assert!(found.contains("unknown key `gpus` in `floor`"), "{found}");
        let found = parsed(&text.replace("measured", "guessed")).expect_err("a word");
        assert!(found.contains("not one of stated, measured"), "{found}");
    }

    #[test]
    fn caches_that_hold_the_model_are_remarked() {
        let (floor, warnings) = parsed(&H200.replace("132 MB", "30 GB")).expect("a runner");
        assert!(floor.is_some() && warnings.contains("bounds nothing"), "{warnings}");
    }
}
