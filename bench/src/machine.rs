//! What the figures were measured on.

use std::fs;
use std::process::Command;

/// Kernel, processor and number of processors, in one line each.
pub fn description() -> String {
    let kernel = Command::new("uname").arg("-srm").output().ok();
    let kernel = kernel.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    format!(
        "kernel      {}\nprocessor   {}\nprocessors  {processors}\nload        {}",
        kernel.unwrap_or_else(|| "unknown".into()),
        model.map_or("unknown", |(_, name)| name.trim()),
        fs::read_to_string("/proc/loadavg").unwrap_or_default().trim(),
    )
}
