//! NVIDIA's GPUs, as the driver's own library tells of them (NVML).
//!
//! Nothing is set or reset here: a GPU may be another's too.

use std::collections::BTreeMap;
use std::ffi::OsStr;

use nvml_wrapper::enum_wrappers::device::{Clock, EccCounter, MemoryError, TemperatureSensor, TopologyLevel};
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};

use crate::model::{GpuFacts, GpuState, GpusFound, Throttle};

/// The library's name where only the driver is installed; the one without a number comes with headers.
pub(super) const LIBRARY: &str = "libnvidia-ml.so.1";
/// Most GPUs that are looked at.
const MAX_GPUS: u32 = 64;
/// Most NVLinks of a GPU (`nvml.h`, "NVML_NVLINK_MAX_LINKS").
const MAX_LINKS: u32 = 18;
/// Longest text that is taken of a driver.
const MAX_TEXT: usize = 96;

/// The library, loaded.
pub(super) struct Driver(Nvml);

impl Driver {
    /// Loads the library.
    ///
    /// # Errors
    /// Why nothing is known of GPUs, as text.
    pub(super) fn load(library: &OsStr) -> Result<Self, String> {
        Nvml::builder().lib_path(library).init().map(Self).map_err(|error| match error {
            NvmlError::LibloadingError(_) => {
                format!("NVIDIA's driver is not there: `{}` cannot be loaded", library.display())
            }
            error => format!("NVIDIA's driver does not answer: {error}"),
        })
    }

    /// What the GPUs are.
    pub(super) fn facts(&self) -> GpusFound {
        let unknown =
            |error: NvmlError| GpusFound::Unknown(format!("NVIDIA's driver does not answer: {error}"));
        let driver = match self.0.sys_driver_version() {
            Ok(driver) => text(driver),
            Err(error) => return unknown(error),
        };
        let devices = match self.devices() {
            Ok(devices) => devices,
            Err(error) => return unknown(error),
        };
        let places: BTreeMap<String, usize> = devices
            .iter()
            .enumerate()
            .filter_map(|(number, device)| Some((device.as_ref().ok()?.pci_info().ok()?.bus_id, number)))
            .collect();
        let list = devices.iter().map(|device| match device {
            Ok(device) => GpuFacts { links: links(device, &places, &devices), ..facts(device) },
            Err(_) => GpuFacts::default(),
        });
        let cuda = self.0.sys_cuda_driver_version().ok().and_then(|version| u32::try_from(version).ok());
        GpusFound::Known { driver, cuda, list: list.collect() }
    }

    /// How the GPUs are; none where the driver does not say how many there are.
    pub(super) fn states(&self) -> Vec<GpuState> {
        let devices = self.devices().unwrap_or_default();
        devices
            .iter()
            .map(|device| match device {
                Ok(device) => state(device),
                Err(error) => GpuState { lost: Some(error.to_string()), ..GpuState::default() },
            })
            .collect()
    }

    /// The GPUs in the driver's order; an error in the place of one that does not answer.
    fn devices(&self) -> Result<Vec<Result<Device<'_>, NvmlError>>, NvmlError> {
        let count = self.0.device_count()?.min(MAX_GPUS);
        Ok((0..count).map(|index| self.0.device_by_index(index)).collect())
    }
}

fn facts(device: &Device<'_>) -> GpuFacts {
    GpuFacts {
        uuid: device.uuid().ok().map(text),
        pci: device.pci_info().ok().map(|pci| text(pci.bus_id)),
        name: device.name().ok().map(text),
        vbios: device.vbios_version().ok().map(text),
        memory_bytes: device.memory_info().ok().map(|memory| memory.total),
        is_ecc_on: device.is_ecc_enabled().ok().map(|state| state.currently_enabled),
        is_mig_on: device.mig_mode().ok().map(|mode| mode.current != 0),
        power_limit_mw: device.power_management_limit().ok(),
        max_sm_mhz: device.max_clock_info(Clock::SM).ok(),
        max_memory_mhz: device.max_clock_info(Clock::Memory).ok(),
        pcie_generation: device.max_pcie_link_gen().ok(),
        pcie_lanes: device.max_pcie_link_width().ok(),
        links: Vec::new(),
    }
}

fn state(device: &Device<'_>) -> GpuState {
    let used = device.memory_info();
    let lost = match &used {
        Err(error @ (NvmlError::GpuLost | NvmlError::Unknown)) => Some(error.to_string()),
        _ => None,
    };
    let processes = device.running_compute_processes().ok();
    let throttle = device.current_throttle_reasons().ok();
    GpuState {
        used_bytes: used.ok().map(|memory| memory.used),
        power_mw: device.power_usage().ok(),
        sm_mhz: device.clock_info(Clock::SM).ok(),
        memory_mhz: device.clock_info(Clock::Memory).ok(),
        celsius: device.temperature(TemperatureSensor::Gpu).ok(),
        throttle: throttle.map(|reasons| Throttle(reasons.bits())),
        uncorrected: device.total_ecc_errors(MemoryError::Uncorrected, EccCounter::Volatile).ok(),
        processes: processes.map(|list| list.into_iter().map(|process| process.pid).collect()),
        lost,
    }
}

/// What a GPU is connected to: by NVLink, and to the other GPUs by the bus. `places` has the GPUs' numbers by place.
fn links(
    device: &Device<'_>,
    places: &BTreeMap<String, usize>,
    devices: &[Result<Device<'_>, NvmlError>],
) -> Vec<String> {
    let mut found: BTreeMap<String, u32> = BTreeMap::new();
    for number in 0..MAX_LINKS {
        let link = device.link_wrapper_for(number);
        if !link.is_active().unwrap_or_default() {
            continue;
        }
        // What is at the other end, and is no GPU, is a switch: NVML tells the kind too, but the crate loses it.
        let peer = link.remote_pci_info().ok().and_then(|pci| places.get(&pci.bus_id));
        let peer = peer.map_or_else(|| "switch".to_owned(), |gpu| format!("gpu {gpu}"));
        *found.entry(peer).or_default() += 1;
    }
    let by_link = found.into_iter().map(|(peer, count)| format!("{peer}: {count} NVLinks"));
    let own = device.index().ok().and_then(|index| usize::try_from(index).ok());
    let others = devices.iter().enumerate().filter(|(number, _)| Some(*number) != own);
    let by_bus = others.filter_map(|(number, other)| {
        // A handle, which belongs to the library.
        let other = device.nvml().device_by_index(other.as_ref().ok()?.index().ok()?).ok()?;
        let level = device.topology_common_ancestor(other).ok()?;
        Some(format!("gpu {number}: {}", word(level)))
    });
    by_link.chain(by_bus).collect()
}

/// How far apart two GPUs are on the bus, in the words of `nvml.h`.
const fn word(level: TopologyLevel) -> &'static str {
    match level {
        TopologyLevel::Internal => "one board",
        TopologyLevel::Single => "one PCIe switch",
        TopologyLevel::Multiple => "PCIe switches",
        TopologyLevel::HostBridge => "one host bridge",
        TopologyLevel::Node => "one NUMA node",
        TopologyLevel::System => "between NUMA nodes",
    }
}

/// Text of the driver, of which nothing is expected.
fn text(text: String) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_TEXT).collect()
}
