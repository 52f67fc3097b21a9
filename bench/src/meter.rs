//! What processes use, by /proc. I/O; the parsing is pure.

use std::path::PathBuf;

use anyhow::{Context, bail};

use crate::bed::Stack;

/// Ticks of `/proc/PID/stat` in a second: fixed on Linux (`USER_HZ`).
const TICKS_PER_S: f64 = 100.0;
const KIB: f64 = 1024.0;
/// Looks at a process and its children, until none of them ended meanwhile.
const LOOKS: usize = 100;

/// What processes used between two moments.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// CPU seconds, user and system.
    pub cpu: f64,
    /// Bytes handed to the block devices.
    pub written: f64,
    /// Peak of the largest process, in MiB.
    pub peak_mib: f64,
}

/// What each part of the stack used.
#[derive(Debug, Clone, Copy, Default)]
pub struct Parts {
    /// All workers together; the peak is that of the largest.
    pub worker: Usage,
    /// ClickHouse.
    pub clickhouse: Usage,
    /// The source with its backends.
    pub source: Usage,
    /// Server, Temporal and catalog.
    pub rest: Usage,
    /// Programs that we ran, such as `psql`.
    pub ours: Usage,
}

/// Measures from its making on.
#[derive(Debug)]
pub struct Meter {
    stack: Vec<(Part, u32)>,
    began: Parts,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Worker,
    Clickhouse,
    Source,
    Rest,
}

impl Meter {
    /// Begins; peaks begin anew.
    ///
    /// # Errors
    /// If a process is gone.
    pub fn begin(stack: &Stack) -> anyhow::Result<Self> {
        let pids = &stack.endpoints().pids;
        let mut stack: Vec<_> = pids.workers.iter().map(|pid| (Part::Worker, *pid)).collect();
        stack.extend([
            (Part::Clickhouse, pids.clickhouse),
            (Part::Source, pids.source),
            (Part::Rest, pids.server),
            (Part::Rest, pids.temporal),
            (Part::Rest, pids.catalog),
        ]);
        for (_, pid) in &stack {
            // 5: the peak becomes what is in use now (proc(5)).
            std::fs::write(format!("/proc/{pid}/clear_refs"), "5").context("resetting a peak")?;
        }
        let began = look(&stack)?;
        Ok(Self { stack, began })
    }

    /// What was used since.
    ///
    /// # Errors
    /// If a process is gone.
    pub fn end(&self) -> anyhow::Result<Parts> {
        let now = look(&self.stack)?;
        let since = |now: Usage, began: Usage| Usage {
            cpu: now.cpu - began.cpu,
            written: now.written - began.written,
            peak_mib: now.peak_mib,
        };
        Ok(Parts {
            worker: since(now.worker, self.began.worker),
            clickhouse: since(now.clickhouse, self.began.clickhouse),
            source: since(now.source, self.began.source),
            rest: since(now.rest, self.began.rest),
            ours: since(now.ours, self.began.ours),
        })
    }
}

fn look(stack: &[(Part, u32)]) -> anyhow::Result<Parts> {
    let mut parts = Parts::default();
    for (part, pid) in stack {
        let usage = tree(*pid)?;
        let sum = match part {
            Part::Worker => &mut parts.worker,
            Part::Clickhouse => &mut parts.clickhouse,
            Part::Source => &mut parts.source,
            Part::Rest => &mut parts.rest,
        };
        sum.cpu += usage.cpu;
        sum.written += usage.written;
        sum.peak_mib = sum.peak_mib.max(usage.peak_mib);
    }
    let own = stat(std::process::id())?;
    parts.ours.cpu = own.of_children;
    Ok(parts)
}

/// A process and its children: PostgreSQL's are its backends. What one used is its parent's when it has
/// ended, so all are looked at again if one did in between: it would be missed, or counted twice.
fn tree(pid: u32) -> anyhow::Result<Usage> {
    for _ in 0..LOOKS {
        let family = children(pid);
        let mut usage = one(pid)?;
        for child in &family {
            let Ok(of_child) = one(*child) else { continue };
            usage.cpu += of_child.cpu;
            usage.written += of_child.written;
        }
        let now = children(pid);
        if family.iter().all(|child| now.contains(child)) {
            return Ok(usage);
        }
    }
    bail!("processes of {pid} end all the time")
}

fn one(pid: u32) -> anyhow::Result<Usage> {
    let stat = stat(pid)?;
    let status = read(pid, "status")?;
    // Needs the right to trace the process: root, or the same user.
    let written = read(pid, "io").ok().and_then(|io| field(&io, "write_bytes:")).unwrap_or_default();
    Ok(Usage {
        cpu: stat.own + stat.of_children,
        written,
        peak_mib: field(&status, "VmHWM:").unwrap_or_default() / KIB,
    })
}

/// The number behind a name at the beginning of a line.
fn field(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Stat {
    parent: u32,
    own: f64,
    of_children: f64,
}

fn stat(pid: u32) -> anyhow::Result<Stat> {
    parse_stat(&read(pid, "stat")?).with_context(|| format!("/proc/{pid}/stat"))
}

/// The fields behind the name, which stands in parentheses and may hold anything (proc(5)).
fn parse_stat(text: &str) -> Option<Stat> {
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let seconds = |at: usize| Some(fields.get(at)?.parse::<f64>().ok()? / TICKS_PER_S);
    Some(Stat {
        parent: fields.get(1)?.parse().ok()?,
        own: seconds(11)? + seconds(12)?,
        of_children: seconds(13)? + seconds(14)?,
    })
}

fn children(pid: u32) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|child| stat(*child).is_ok_and(|stat| stat.parent == pid)).collect()
}

fn read(pid: u32, file: &str) -> anyhow::Result<String> {
    let path = PathBuf::from(format!("/proc/{pid}/{file}"));
    std::fs::read_to_string(&path).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_whatever_its_name() {
        let line = "7 (a) b) c) S 3 7 7 0 -1 4194304 1 2 3 4 150 50 20 30 20 0 1 0";
        assert_eq!(parse_stat(line), Some(Stat { parent: 3, own: 2.0, of_children: 0.5 }));
        assert_eq!(parse_stat("7 (a) S"), None);
    }

    #[test]
    fn the_peak_of_this_process_is_known() {
        let usage = one(std::process::id()).unwrap();
        assert!(usage.peak_mib > 1.0, "{usage:?}");
    }
}
