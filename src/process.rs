//! What this process uses: CPU, memory, descriptors, threads, read from `/proc`.

use std::time::{Duration, Instant};

use procfs::process::Process;

use crate::report;

/// Shortest run over which a slope of memory means anything.
const SLOPE_AFTER: Duration = Duration::from_secs(60);

/// Samples the process over a run; the end of it is a [`report::Process`].
#[derive(Debug)]
pub struct Usage {
    start: Sample,
    last: Sample,
    rss_peak: u64,
    threads_peak: u64,
    samples: Vec<(Duration, u64)>,
    began: Instant,
}

/// What the process uses at one instant.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    /// CPU time since its start, of user and system, in seconds.
    pub cpu_s: f64,
    /// Resident memory, in bytes.
    pub rss: u64,
    /// Open file descriptors.
    pub fds: u64,
    /// Threads.
    pub threads: u64,
}

impl Usage {
    /// Begins at `now`. Where `/proc` cannot be read every figure is zero.
    pub fn new(now: Instant) -> Self {
        let start = read().unwrap_or_default();
        let mut usage = Self {
            start,
            last: start,
            rss_peak: 0,
            threads_peak: 0,
            samples: Vec::new(),
            began: now,
        };
        usage.sample(now);
        usage
    }

    /// Takes a sample. Call it about once a second; the slope keeps at most one sample a second.
    pub fn sample(&mut self, now: Instant) {
        let Some(sample) = read() else { return };
        self.last = sample;
        self.rss_peak = self.rss_peak.max(sample.rss);
        self.threads_peak = self.threads_peak.max(sample.threads);
        let at = now.saturating_duration_since(self.began);
        if self
            .samples
            .last()
            .is_none_or(|(last, _)| at >= *last + Duration::from_secs(1))
        {
            self.samples.push((at, sample.rss));
            // Months of uptime: halve the density, keep the span.
            if self.samples.len() > 4_096 {
                let mut n = 0_usize;
                self.samples.retain(|_| {
                    n += 1;
                    n % 2 == 1
                });
            }
        }
    }

    /// The figures up to the last sample.
    pub fn report(&self) -> report::Process {
        report::Process {
            cpu_s: self.last.cpu_s - self.start.cpu_s,
            rss_start_bytes: self.start.rss,
            rss_peak_bytes: self.rss_peak,
            rss_end_bytes: self.last.rss,
            rss_slope_bytes_per_h: self.slope(),
            fds_start: self.start.fds,
            fds_end: self.last.fds,
            threads_peak: self.threads_peak,
        }
    }

    fn slope(&self) -> Option<f64> {
        let (span, _) = self.samples.last()?;
        if *span < SLOPE_AFTER {
            return None;
        }
        let half: Vec<(f64, f64)> = self
            .samples
            .iter()
            .filter(|(at, _)| *at >= *span / 2)
            .map(|(at, rss)| (at.as_secs_f64() / 3_600.0, *rss as f64))
            .collect();
        slope(&half)
    }
}

/// Slope of the least-squares line through `points`.
fn slope(points: &[(f64, f64)]) -> Option<f64> {
    let n = points.len() as f64;
    let mean_x = points.iter().map(|p| p.0).sum::<f64>() / n;
    let mean_y = points.iter().map(|p| p.1).sum::<f64>() / n;
    let covariance: f64 = points.iter().map(|p| (p.0 - mean_x) * (p.1 - mean_y)).sum();
    let variance: f64 = points.iter().map(|p| (p.0 - mean_x).powi(2)).sum();
    (variance > 0.0).then(|| covariance / variance)
}

/// What this process uses now; `None` where `/proc` cannot be read.
pub fn read() -> Option<Sample> {
    let process = Process::myself().ok()?;
    let stat = process.stat().ok()?;
    let ticks = procfs::ticks_per_second() as f64;
    Some(Sample {
        cpu_s: (stat.utime + stat.stime) as f64 / ticks,
        rss: stat.rss * procfs::page_size(),
        fds: process.fd_count().ok()? as u64,
        threads: u64::try_from(stat.num_threads).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_its_slope() {
        let points: Vec<_> = (0..10)
            .map(|n| (f64::from(n), 3.0 * f64::from(n) + 1.0))
            .collect();
        assert!((slope(&points).unwrap() - 3.0).abs() < 1e-9);
        assert_eq!(slope(&[(1.0, 1.0)]), None);
        assert_eq!(slope(&[]), None);
    }

    #[test]
    #[expect(
        clippy::disallowed_methods,
        reason = "a test of what is read from /proc needs some instant"
    )]
    fn this_process_uses_something() {
        let usage = Usage::new(Instant::now()).report();
        assert!(usage.rss_peak_bytes > 100_000 && usage.threads_peak >= 1 && usage.fds_end >= 3);
    }
}
