//! What a machine's GPUs did while a read was timed, from samples of about one a second.

use std::collections::BTreeMap;

use crate::model::{GpuSampleRow, Throttle};

/// Longest time between two samples of a GPU over which its power is taken to be known, in nanoseconds.
pub const MAX_GAP_NS: i64 = 3_000_000_000;

/// What the samples of a read come to; what no sample says is absent.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Telemetry {
    /// Energy of all GPUs over the window, in joules, or why it is not known.
    pub joules: Option<Result<f64, NoEnergy>>,
    /// Lowest frequency of a GPU's processors, in MHz.
    pub sm_mhz_min: Option<u32>,
    /// Mean frequency of the GPUs' processors over the samples, in MHz.
    pub sm_mhz_mean: Option<f64>,
    /// Highest temperature of a GPU, in degrees Celsius.
    pub celsius_max: Option<u32>,
    /// All reasons why a frequency was not higher.
    pub throttle: Option<Throttle>,
    /// Most processes on a GPU at an instant that were not the server's.
    pub foreign_max: Option<u32>,
}

/// Why the energy of a window is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoEnergy {
    /// A sample lacks the power.
    #[error("no-power")]
    NoPower,
    /// For more than [`MAX_GAP_NS`] there is no sample of a GPU, at the window's ends included.
    #[error("gap")]
    Gap,
    /// The window has no length.
    #[error("no-window")]
    NoWindow,
}

impl Telemetry {
    /// The telemetry of a window of `window_ns` nanoseconds that begins with the watch of the GPUs.
    pub fn of(samples: &[GpuSampleRow], window_ns: i64) -> Self {
        if samples.is_empty() {
            return Self::default();
        }
        let clocks = samples.iter().filter_map(|sample| sample.sm_mhz);
        let (sum, count) =
            clocks.clone().fold((0.0, 0.0), |(sum, count), mhz| (sum + f64::from(mhz), count + 1.0));
        let throttles = samples.iter().filter_map(|sample| sample.throttle);
        Self {
            joules: Some(energy(samples, window_ns)),
            sm_mhz_min: clocks.min(),
            sm_mhz_mean: (count > 0.0).then(|| sum / count),
            celsius_max: samples.iter().filter_map(|sample| sample.celsius).max(),
            throttle: throttles.map(|bits| Throttle(bits.cast_unsigned())).reduce(Throttle::or),
            foreign_max: samples.iter().filter_map(|sample| sample.foreign).max(),
        }
    }
}

/// Joules of all GPUs from 0 to `window_ns`, by trapezoids between the samples.
fn energy(samples: &[GpuSampleRow], window_ns: i64) -> Result<f64, NoEnergy> {
    if window_ns <= 0 {
        return Err(NoEnergy::NoWindow);
    }
    let mut of_gpu: BTreeMap<u32, Vec<(i64, f64)>> = BTreeMap::new();
    for sample in samples {
        let watts = f64::from(sample.power_mw.ok_or(NoEnergy::NoPower)?) / 1e3;
        of_gpu.entry(sample.gpu).or_default().push((sample.at_ns, watts));
    }
    of_gpu.into_values().try_fold(0.0, |sum, mut points| {
        points.sort_by_key(|(at_ns, _)| *at_ns);
        Ok(sum + of_one(&points, window_ns)?)
    })
}

/// The same of one GPU, whose samples are in order and at least one.
fn of_one(points: &[(i64, f64)], window_ns: i64) -> Result<f64, NoEnergy> {
    let (first, last) = (points.first().ok_or(NoEnergy::Gap)?, points.last().ok_or(NoEnergy::Gap)?);
    // Beyond the first and the last sample the power is theirs, for no longer than a gap may be.
    let (begin, end) = ((0.min(first.0), first.1), (window_ns.max(last.0), last.1));
    let padded: Vec<(i64, f64)> = [begin].into_iter().chain(points.iter().copied()).chain([end]).collect();
    padded.windows(2).try_fold(0.0, |sum, pair| {
        let [(from, at_from), (to, at_to)] = *pair else { return Ok(sum) };
        let (inner_from, inner_to) = (from.max(0), to.min(window_ns));
        if inner_to <= inner_from {
            return Ok(sum);
        }
        if to - from > MAX_GAP_NS {
            return Err(NoEnergy::Gap);
        }
        let power = |at: i64| at_from + (at_to - at_from) * (at - from) as f64 / (to - from) as f64;
        let seconds = (inner_to - inner_from) as f64 / 1e9;
        Ok(sum + f64::midpoint(power(inner_from), power(inner_to)) * seconds)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    fn sample(gpu: u32, at_ns: i64, watts: u32) -> GpuSampleRow {
        GpuSampleRow { gpu, at_ns, power_mw: Some(watts * 1000), ..GpuSampleRow::default() }
    }

    fn joules(samples: &[GpuSampleRow], window_ns: i64) -> Result<f64, NoEnergy> {
        let found = Telemetry::of(samples, window_ns).joules.expect("samples");
        found.map(|joules| (joules * 1e6).round() / 1e6)
    }

    #[test]
    fn energy_is_the_area_below_the_power() {
        let steady = [sample(0, 0, 500), sample(0, SECOND, 500), sample(0, 2 * SECOND, 500)];
        assert_eq!(joules(&steady, 2 * SECOND), Ok(1000.0));
        // A ramp from 0 to 200 W over 2 s, cut in its middle: the end is interpolated.
        let ramp = [sample(0, 0, 0), sample(0, 2 * SECOND, 200)];
        assert_eq!(joules(&ramp, 2 * SECOND), Ok(200.0));
        assert_eq!(joules(&ramp, SECOND), Ok(50.0));
        // Two GPUs, whose samples come in any order.
        let two = [sample(1, SECOND, 100), sample(0, 0, 300), sample(1, 0, 100), sample(0, SECOND, 300)];
        assert_eq!(joules(&two, SECOND), Ok(400.0));
        // The end of the window comes some time after the last sample.
        assert_eq!(joules(&steady, 3 * SECOND), Ok(1500.0));
    }

    #[test]
    fn an_energy_that_is_not_known_says_why() {
        let gap = [sample(0, 0, 500), sample(0, 4 * SECOND, 500)];
        assert_eq!(joules(&gap, 4 * SECOND), Err(NoEnergy::Gap));
        assert_eq!(joules(&[sample(0, 0, 500)], 4 * SECOND), Err(NoEnergy::Gap));
        assert_eq!(joules(&[sample(0, 4 * SECOND, 500)], 4 * SECOND), Err(NoEnergy::Gap));
        // A gap of one GPU, where the other has none.
        let one = [sample(0, 0, 1), sample(0, SECOND, 1), sample(1, 0, 1), sample(1, 4 * SECOND, 1)];
        assert_eq!(joules(&one, 4 * SECOND), Err(NoEnergy::Gap));
        let unknown = GpuSampleRow { power_mw: None, ..sample(0, SECOND, 1) };
        assert_eq!(joules(&[sample(0, 0, 500), unknown], SECOND), Err(NoEnergy::NoPower));
        assert_eq!(joules(&[sample(0, 0, 500)], 0), Err(NoEnergy::NoWindow));
        assert_eq!(Telemetry::of(&[], SECOND), Telemetry::default());
    }

    #[test]
    fn extremes_are_those_of_any_gpu() {
        let sample = |gpu, at_ns, sm_mhz, celsius| GpuSampleRow {
            gpu,
            at_ns,
            sm_mhz: Some(sm_mhz),
            celsius: Some(celsius),
            throttle: Some(i64::from(gpu) * 4),
            foreign: Some(gpu),
            ..GpuSampleRow::default()
        };
        let samples =
            [sample(0, 0, 1980, 50), sample(1, 0, 1500, 71), sample(0, 1, 1980, 55), sample(2, 0, 1980, 1)];
        let found = Telemetry::of(&samples, SECOND);
        assert_eq!((found.sm_mhz_min, found.celsius_max), (Some(1500), Some(71)));
        assert_eq!(found.sm_mhz_mean, Some(1860.0));
        assert_eq!(found.throttle, Some(Throttle(0x4 | 0x8)));
        assert_eq!(found.foreign_max, Some(2));
        assert_eq!(found.joules, Some(Err(NoEnergy::NoPower)));
    }
}
