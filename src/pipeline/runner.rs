//! `runners/*.yml` -> [`RunnerSpec`]: where a job runs, what boots its servers, what the machine must be.

use super::code::Code;
use super::diagnostic::{Diagnostic, Diagnostics, Parsed};
use super::floor::{FloorSource, floor};
use super::parse::decoder::{Decoder, Fields, Slot};
use super::source::{Source, Span};
use super::yaml;
use crate::model::MachineSpec;

mod machine_parts;

pub use machine_parts::{CpuList, Gpus};

/// A checked runner.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct RunnerSpec {
    /// Name of the runner, unique among the runner files.
    pub name: String,
    /// The labels a job's `runs-on` may ask for; its name is one of them.
    pub labels: Vec<String>,
    /// Where the job's process runs.
    pub place: RunnerPlace,
    /// The engine that boots servers.
    pub engine: EngineKind,
    /// What the machine must be; checked before every launch and after every read.
    pub machine: MachineSpec,
    /// The model's directory on that machine.
    pub model_dir: Option<String>,
    /// What one server may use.
    pub limits: Limits,
    /// The container runtime that starts servers, by its name in the daemon's configuration; without it the daemon's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// The GPUs that a server gets; without them none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpus: Option<Gpus>,
    /// How many jobs run at once.
    pub capacity: u32,
    /// The folder of image manifests, for the process engine.
    pub images: Option<String>,
    /// What the least time of an answer follows from; without it no time is impossible there.
    pub floor: Option<FloorSource>,
}

/// Where a job's process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunnerPlace {
    /// On this machine.
    #[default]
    Local,
    /// On another machine.
    Ssh,
    /// Where a Slurm controller puts it.
    Slurm,
}

impl RunnerPlace {
    /// The word of a runner's file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Ssh => "ssh",
            Self::Slurm => "slurm",
        }
    }
}

/// An engine: what boots servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum EngineKind {
    /// A child process; for servers that are trusted.
    #[default]
    Process,
    /// A container of the Docker daemon.
    Docker,
}

impl EngineKind {
    /// The word of a runner's file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Docker => "docker",
        }
    }
}

/// What one server may use; `None` is no limit.
#[derive(Debug, Clone, PartialEq, Default, serde::Serialize)]
pub struct Limits {
    /// Number of processor cores.
    pub cpus: Option<u32>,
    /// The processors it runs on, which this program leaves to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpuset: Option<CpuList>,
    /// Main memory, in MiB.
    pub memory_mib: Option<u64>,
    /// Number of processes and threads together.
    pub pids: Option<u32>,
    /// Shared memory, in MiB.
    pub shm_mib: Option<u64>,
    /// Temporary files, in MiB.
    pub tmpfs_mib: Option<u64>,
    /// Size of the image, in MiB: of its files, and of its layers as the registry keeps them.
    pub image_mib: Option<u64>,
    /// How many images stay on the machine beside the one that is pulled.
    pub kept_images: Option<u32>,
    /// Size of the log that is kept, in KiB.
    pub log_kib: Option<u64>,
}

impl RunnerSpec {
    /// Reads and checks a runner.
    ///
    /// # Errors
    /// Everything that is wrong with the file, in the order of their places.
    pub fn parse(source: &Source) -> Result<Parsed<Self>, Diagnostics> {
        let node = yaml::parse(source).map_err(|found| Diagnostics::new(source, found))?;
        let mut decoder = Decoder::new(source);
        let runner = runner(&mut decoder, &node);
        let findings = Diagnostics::new(source, decoder.findings);
        match runner {
            Some(value) if !findings.has_errors() => Ok(Parsed { value, warnings: findings }),
            _ => Err(findings),
        }
    }

    /// Whether the runner has all these labels.
    pub fn has_labels(&self, wanted: &[String]) -> bool {
        has_labels(self.labels.iter(), wanted)
    }
}

/// Whether a job with these labels runs on the controller, and on no runner.
pub fn wants_controller(wanted: &[String]) -> bool {
    wanted.iter().all(|label| label.eq_ignore_ascii_case("controller"))
}

/// Whether all the labels that are wanted are there, whatever their case.
pub fn has_labels<'l>(own: impl Iterator<Item = &'l String> + Clone, wanted: &[String]) -> bool {
    wanted.iter().all(|label| own.clone().any(|own| own.eq_ignore_ascii_case(label)))
}

pub(super) fn runner(decoder: &mut Decoder<'_>, node: &yaml::Node) -> Option<RunnerSpec> {
    let mut fields = decoder.fields(node, "the runner", Span::at(node.span.start))?;
    let name = fields.require("name", decoder).and_then(|slot| {
        let name = decoder.string(slot)?;
        decoder.check_id("runner", &name, slot.underlined());
        Some(name)
    });
    let mut labels: Vec<String> =
        fields.take("labels").map(|slot| strings(decoder, slot)).unwrap_or_default();
    let place_slot = fields.take("place");
    let place = place_slot.and_then(|slot| {
        let words =
            &[("local", RunnerPlace::Local), ("ssh", RunnerPlace::Ssh), ("slurm", RunnerPlace::Slurm)];
        decoder.word(slot, words)
    });
    let engine = fields.require("engine", decoder);
    let kind = engine.and_then(|slot| {
        decoder.word(slot, &[("process", EngineKind::Process), ("docker", EngineKind::Docker)])
    });
    if let (Some(slot), Some(RunnerPlace::Ssh | RunnerPlace::Slurm)) = (place_slot, place) {
        let message = "this `place` is not supported yet: jobs run on this machine only";
        decoder.report(
            Diagnostic::error(Code::Unsupported, slot.underlined(), message)
                .help("the only place is `local`"),
        );
    }
    let machine = fields.take("machine").and_then(|slot| machine(decoder, slot)).unwrap_or_default();
    let model_dir = fields.take("model-dir").and_then(|slot| decoder.string(slot));
    let limits = fields.take("limits").and_then(|slot| limits(decoder, slot, kind)).unwrap_or_default();
    let capacity = fields.take("capacity").and_then(|slot| decoder.integer(slot, 1)).unwrap_or(1);
    let images = fields.take("images");
    if let (Some(engine), Some(EngineKind::Process), None) = (engine, kind, images) {
        let message = "the process engine needs `images`, the folder of its image manifests";
        decoder.report(Diagnostic::error(Code::MissingKey, engine.underlined(), message));
    }
    if let (Some(images), Some(EngineKind::Docker)) = (images, kind) {
        let message = "`images` has no effect with the docker engine: it asks the registry";
        decoder.report(Diagnostic::error(Code::UnknownKey, images.key.span, message).help("delete the key"));
    }
    let images = images.and_then(|slot| decoder.string(slot));
    let runtime = of_containers(decoder, &mut fields, ("runtime", kind)).and_then(|slot| {
        let name = decoder.string(slot)?;
        decoder.check_id("runtime", &name, slot.underlined());
        Some(name)
    });
    let gpus = of_containers(decoder, &mut fields, ("gpus", kind)).and_then(|slot| {
        let names = strings(decoder, slot);
        checked(decoder, slot, Gpus::new(names))
    });
    let floor = fields.take("floor").and_then(|slot| floor(decoder, slot));
    fields.finish(decoder);
    let name = name?;
    if !labels.contains(&name) {
        labels.insert(0, name.clone());
    }
    Some(RunnerSpec {
        name,
        labels,
        place: place.unwrap_or_default(),
        engine: kind?,
        machine,
        model_dir,
        limits,
        runtime,
        gpus,
        capacity,
        images,
        floor,
    })
}

fn strings(decoder: &mut Decoder<'_>, slot: Slot<'_>) -> Vec<String> {
    decoder.one_or_more(slot).into_iter().filter_map(|item| decoder.string(item)).collect()
}

fn machine(decoder: &mut Decoder<'_>, slot: Slot<'_>) -> Option<MachineSpec> {
    let mut fields = decoder.fields(slot.node, "`machine`", slot.key.span)?;
    let machine = MachineSpec {
        gpus: fields.require("gpus", decoder).and_then(|slot| decoder.integer(slot, 1)).unwrap_or_default(),
        gpu_model: fields.take("gpu-model").and_then(|slot| decoder.string(slot)),
        gpu_memory_gib: number(decoder, &mut fields, "gpu-memory-gib"),
    };
    fields.finish(decoder);
    Some(machine)
}

fn limits(decoder: &mut Decoder<'_>, slot: Slot<'_>, engine: Option<EngineKind>) -> Option<Limits> {
    let mut fields = decoder.fields(slot.node, "`limits`", slot.key.span)?;
    let limits = Limits {
        cpus: contained(decoder, &mut fields, ("cpus", engine)),
        cpuset: of_containers(decoder, &mut fields, ("cpuset", engine)).and_then(|slot| {
            let text = decoder.string(slot)?;
            checked(decoder, slot, text.parse())
        }),
        memory_mib: contained(decoder, &mut fields, ("memory-mib", engine)),
        pids: contained(decoder, &mut fields, ("pids", engine)),
        shm_mib: contained(decoder, &mut fields, ("shm-mib", engine)),
        tmpfs_mib: contained(decoder, &mut fields, ("tmpfs-mib", engine)),
        image_mib: contained(decoder, &mut fields, ("image-mib", engine)),
        kept_images: contained(decoder, &mut fields, ("kept-images", engine)),
        log_kib: fields.take("log-kib").and_then(|slot| decoder.integer(slot, 0)),
    };
    fields.finish(decoder);
    Some(limits)
}

/// A limit that only a container has.
fn contained<T: TryFrom<i64>>(
    decoder: &mut Decoder<'_>,
    fields: &mut Fields<'_>,
    what: (&'static str, Option<EngineKind>),
) -> Option<T> {
    of_containers(decoder, fields, what).and_then(|slot| decoder.integer(slot, 0))
}

/// A setting that only a container has.
fn of_containers<'n>(
    decoder: &mut Decoder<'_>,
    fields: &mut Fields<'n>,
    (name, engine): (&'static str, Option<EngineKind>),
) -> Option<Slot<'n>> {
    let slot = fields.take(name)?;
    if engine == Some(EngineKind::Process) {
        let message = format!("`{name}` has no effect with the process engine, which isolates nothing");
        decoder.report(Diagnostic::error(Code::UnknownKey, slot.key.span, message).help("delete the key"));
    }
    Some(slot)
}

/// The value of a setting, or a finding that says what is wrong with it.
fn checked<T>(decoder: &mut Decoder<'_>, slot: Slot<'_>, value: Result<T, String>) -> Option<T> {
    value.map_err(|why| decoder.report(Diagnostic::error(Code::WrongType, slot.underlined(), why))).ok()
}

fn number<T: TryFrom<i64>>(
    decoder: &mut Decoder<'_>,
    fields: &mut Fields<'_>,
    name: &'static str,
) -> Option<T> {
    fields.take(name).and_then(|slot| decoder.integer(slot, 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::diagnostic::Color;

    #[test]
    fn a_whole_runner_is_read() {
        let text = "name: h200x4\nlabels: [h200, gpu]\nplace: local\nengine: docker\nmodel-dir: /models/m\nlimits: {cpus: 32, memory-mib: 65536, log-kib: 512}\ncapacity: 1\n";
        let runner = RunnerSpec::parse(&Source::new("runners/h.yml", text)).unwrap().value;
        assert_eq!(runner.labels, ["h200x4", "h200", "gpu"]);
        assert_eq!((runner.place, runner.engine), (RunnerPlace::Local, EngineKind::Docker));
        assert_eq!(runner.limits.memory_mib, Some(65_536));
        let has =
            |wanted: &[&str]| runner.has_labels(&wanted.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert!(has(&["GPU", "h200"]) && !has(&["a100"]));
    }

    #[test]
    fn a_container_has_runtime_gpus_and_processors() {
        let parse = |text: &str| {
            let text = format!("name: h\nmodel-dir: /m\n{text}");
            let found = RunnerSpec::parse(&Source::new("runners/h.yml", &text));
            found.map(|parsed| parsed.value).map_err(|found| found.render(Color::Never))
        };
        let runner =
            parse("engine: docker\nruntime: runsc\ngpus: ['0', '1']\nlimits: {cpuset: 8-63}\n").unwrap();
        assert_eq!(runner.runtime.as_deref(), Some("runsc"));
        assert_eq!(runner.gpus, Some(Gpus::Nvidia(vec!["0".to_owned(), "1".to_owned()])));
        assert_eq!(runner.limits.cpuset.map(|list| list.to_string()).as_deref(), Some("8-63"));
        let wrong = parse("engine: docker\ngpus: [all]\nlimits: {cpuset: 8-}\n").unwrap_err();
        assert!(
            wrong.contains("`all` is no name of one GPU") && wrong.contains("`` is no processor's number"),
            "{wrong}"
        );
        let process =
            parse("engine: process\nimages: i\nruntime: runsc\ngpus: ['0']\nlimits: {cpuset: '1'}\n");
        let wrong = process.unwrap_err();
        for name in ["runtime", "gpus", "cpuset"] {
            assert!(wrong.contains(&format!("`{name}` has no effect with the process engine")), "{wrong}");
        }
    }

    #[test]
    fn everything_wrong_is_found_at_once() {
        let text = "name: a b\nengine: proces\nplase: local\ncapacity: 0\nlimits: {cpus: many}\n";
        let found = RunnerSpec::parse(&Source::new("r.yml", text)).unwrap_err();
        insta::assert_snapshot!(found.render(Color::Never));
    }
}
