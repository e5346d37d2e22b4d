//! The machine that measures: what it is, which no read changes, and how it is at an instant.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::row;

/// What a machine is. Two reads are compared only where this is the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineFacts {
    /// Model of the processor, as the kernel reports it.
    pub cpu: Option<String>,
    /// Number of logical processors that this program may use.
    pub cpus: Option<u32>,
    /// Size of the main memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Release of the kernel.
    pub kernel: Option<String>,
    /// What sets the processors' frequency (cpufreq's governor), all that are in use in alphabetical order; none where the
    /// kernel sets none, as in a virtual machine.
    pub cpu_governor: Option<String>,
    /// What the kernel tells the time by.
    pub clock_source: Option<String>,
    /// The GPUs.
    pub gpus: GpusFound,
}

/// The GPUs of a machine, or why nothing is known of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum GpusFound {
    /// Nothing is known of any, and why.
    Unknown(String),
    /// What the driver tells.
    Known {
        /// Version of the driver.
        driver: String,
        /// Highest version of CUDA that the driver has, as NVML counts: 12040 is 12.4.
        cuda: Option<u32>,
        /// The GPUs, in the driver's order.
        list: Vec<GpuFacts>,
    },
}

impl Default for GpusFound {
    fn default() -> Self {
        Self::Unknown("nobody looked".to_owned())
    }
}

impl GpusFound {
    /// The GPUs that are known.
    pub fn list(&self) -> &[GpuFacts] {
        match self {
            Self::Unknown(_) => &[],
            Self::Known { list, .. } => list,
        }
    }
}

/// What a GPU is; what the driver does not say of it is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GpuFacts {
    /// Its lasting identity.
    pub uuid: Option<String>,
    /// Its place on the bus, `00000000:41:00.0`.
    pub pci: Option<String>,
    /// Name of its model.
    pub name: Option<String>,
    /// Version of its firmware.
    pub vbios: Option<String>,
    /// Size of its memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Whether its memory corrects errors.
    pub is_ecc_on: Option<bool>,
    /// Whether it is divided (Multi-Instance GPU).
    pub is_mig_on: Option<bool>,
    /// The power that it is held below, in milliwatts.
    pub power_limit_mw: Option<u32>,
    /// Highest frequency of its processors, in MHz.
    pub max_sm_mhz: Option<u32>,
    /// Highest frequency of its memory, in MHz.
    pub max_memory_mhz: Option<u32>,
    /// Generation of its PCIe link, at most.
    pub pcie_generation: Option<u32>,
    /// Number of lanes of its PCIe link, at most.
    pub pcie_lanes: Option<u32>,
    /// What it is connected to, and by what: `switch: 18 NVLinks`, `gpu 1: 6 NVLinks`, `gpu 1: node`.
    pub links: Vec<String>,
}

/// How a machine is at an instant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MachineState {
    /// The faults of GPUs that the kernel's log has since it started; none where this program may not read it.
    pub xids: Option<Vec<Xid>>,
    /// Its GPUs, as [`GpusFound::list`].
    pub gpus: Vec<GpuState>,
}

/// What a machine is and how it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MachineLook {
    /// What it is.
    pub facts: MachineFacts,
    /// How it is.
    pub state: MachineState,
}

/// How a GPU is at an instant; what the driver does not say of it is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GpuState {
    /// Memory in use, in bytes, without what the driver reserves.
    pub used_bytes: Option<u64>,
    /// Power in milliwatts.
    pub power_mw: Option<u32>,
    /// Frequency of its processors, in MHz.
    pub sm_mhz: Option<u32>,
    /// Frequency of its memory, in MHz.
    pub memory_mhz: Option<u32>,
    /// Temperature in degrees Celsius.
    pub celsius: Option<u32>,
    /// Why its frequency is not higher.
    pub throttle: Option<Throttle>,
    /// Errors of its memory that could not be corrected, since the driver was loaded.
    pub uncorrected: Option<u64>,
    /// Numbers of the processes that compute on it.
    pub processes: Option<Vec<u32>>,
    /// Why the driver tells nothing of it: it has fallen off the bus, for example.
    pub lost: Option<String>,
}

/// A fault that the NVIDIA driver reported to the kernel's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Xid {
    /// Place of the GPU on the bus, as the driver wrote it.
    pub pci: String,
    /// Number of the fault (NVIDIA, "Xid Errors").
    pub code: u32,
}

impl Xid {
    /// Faults of the hardware or the driver; the others are those of programs.
    const OF_THE_MACHINE: [u32; 12] = [48, 63, 64, 74, 79, 92, 94, 95, 119, 120, 140, 154];

    /// Whether the hardware or the driver failed, and not a program.
    pub fn is_of_the_machine(code: u32) -> bool {
        Self::OF_THE_MACHINE.contains(&code)
    }
}

/// Why a GPU's frequency is not higher: a set of reasons (`nvml.h`, "nvmlClocksEventReasons").
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Throttle(pub u64);

impl Throttle {
    /// The reasons, and whether one says that the GPU, or the machine around it, is not well.
    const REASONS: [(u64, &'static str, bool); 9] = [
        (0x1, "gpu-idle", false),
        (0x2, "application-clocks", false),
        (0x4, "software-power-cap", false),
        (0x8, "hardware-slowdown", true),
        (0x10, "sync-boost", false),
        (0x20, "software-thermal", true),
        (0x40, "hardware-thermal", true),
        (0x80, "hardware-power-brake", true),
        (0x100, "display-clock", false),
    ];

    /// The reasons of either.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those that say that the GPU, or the machine around it, is not well: too hot, or short of power.
    #[must_use]
    pub fn unwell(self) -> Self {
        let unwell = Self::REASONS.iter().filter(|(_, _, is_unwell)| *is_unwell);
        Self(unwell.fold(0, |bits, (bit, ..)| bits | (self.0 & bit)))
    }

    /// The reasons of these names, with commas between them; names that are none are left out.
    pub fn named(names: &str) -> Self {
        let bit =
            |name: &str| Self::REASONS.iter().find(|(_, known, _)| *known == name).map(|(bit, ..)| *bit);
        Self(names.split(',').filter_map(bit).fold(0, |bits, bit| bits | bit))
    }

    /// Whether there is no reason.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for Throttle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut comma = "";
        let mut rest = self.0;
        for (bit, name, _) in Self::REASONS.iter().filter(|(bit, ..)| self.0 & bit != 0) {
            write!(f, "{comma}{name}")?;
            comma = ",";
            rest &= !bit;
        }
        if rest != 0 {
            write!(f, "{comma}{rest:#x}")?;
        }
        Ok(())
    }
}

/// What a runner's file says that its machine is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineSpec {
    /// Number of GPUs of the machine; 0 where nothing is said of any.
    pub gpus: u32,
    /// Model of the GPUs: a part of the name that the driver reports, whatever its case.
    pub gpu_model: Option<String>,
    /// The least memory of each GPU, in GiB.
    pub gpu_memory_gib: Option<u32>,
}

row! {
    /// A row of `gpu_samples`: a GPU at an instant of a read.
    pub struct GpuSampleRow {
        /// Id of the round.
        pub round_id: String,
        /// Key of the read.
        pub read_key: String,
        /// The instant, since the read's watch of the GPUs began, which is just before its first request.
        pub at_ns: i64,
        /// Number of the GPU in the driver's order, from 0.
        pub gpu: u32,
        /// Memory in use, without what the driver reserves.
        pub used_bytes: Option<i64>,
        /// Power in milliwatts.
        pub power_mw: Option<u32>,
        /// Frequency of its processors.
        pub sm_mhz: Option<u32>,
        /// Frequency of its memory.
        pub memory_mhz: Option<u32>,
        /// Temperature in degrees Celsius.
        pub celsius: Option<u32>,
        /// Why its frequency is not higher: the bits of NVML.
        pub throttle: Option<i64>,
        /// Number of processes that compute on it, and are not the server's.
        pub foreign: Option<u32>,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_have_names() {
        assert_eq!(Throttle(0).to_string(), "");
        assert_eq!(Throttle(0x5).to_string(), "gpu-idle,software-power-cap");
        assert_eq!(Throttle(0x1_0040).to_string(), "hardware-thermal,0x10000");
        assert_eq!(Throttle(0x1ff).unwell(), Throttle(0x8 | 0x20 | 0x40 | 0x80));
        assert!(Throttle(0x7).unwell().is_empty());
        assert_eq!(Throttle::named(&Throttle(0x1ff).to_string()), Throttle(0x1ff));
        assert_eq!(Throttle::named("none,,gpu-idle"), Throttle(0x1));
    }

    #[test]
    fn a_program_s_fault_is_not_the_machine_s() {
        for code in [13, 31, 43, 45] {
            assert!(!Xid::is_of_the_machine(code));
        }
        assert!(Xid::is_of_the_machine(79));
    }
}
