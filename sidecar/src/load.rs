//! How busy this machine is, for announcements: from `/proc`, where there is one. Decides nothing.

use std::time::Duration;

use broker_adapter::shell::Shell;
use tokio::sync::watch;

use crate::command::NodeLoad;

/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Processor time since the machine began, in its own ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ticks {
    busy: u64,
    all: u64,
}

/// Looks from time to time, until nobody listens.
pub fn watch(load: watch::Sender<Option<NodeLoad>>, shell: &Shell) {
    let task_shell = shell.clone();
    shell.spawn(async move {
        let mut before = None;
        while !load.is_closed() {
            let (ticks, memory_bytes) = task_shell.blocking(look).await;
            let cpu_permille = before.zip(ticks).and_then(|(before, now)| permille(before, now));
            before = ticks;
            let present = NodeLoad { cpu_permille, memory_bytes };
            load.send_replace((present != NodeLoad::default()).then_some(present));
            task_shell.sleep(LOOK_EVERY).await;
        }
    });
}

fn look() -> (Option<Ticks>, Option<u64>) {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    (ticks(&read("/proc/stat")), resident(&read("/proc/self/status")))
}

/// Of the line `cpu`: user, nice, system, idle, iowait, irq, softirq, steal.
fn ticks(stat: &str) -> Option<Ticks> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let times: Vec<u64> = line.split_whitespace().take(8).map_while(|word| word.parse().ok()).collect();
    let idle = times.get(3)? + times.get(4).copied().unwrap_or_default();
    let all: u64 = times.iter().sum();
    Some(Ticks { busy: all - idle, all })
}

fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1_024)
}

fn permille(before: Ticks, now: Ticks) -> Option<u32> {
    let (busy, all) = (now.busy.checked_sub(before.busy)?, now.all.checked_sub(before.all)?);
    u32::try_from((busy * 1_000).checked_div(all)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_load_is_what_was_busy_between_two_looks() {
        let before = ticks("cpu  100 0 50 800 50 0 0 0 0 0\ncpu0 1 2 3 4\n").unwrap();
        let now = ticks("cpu  150 0 75 875 100 0 0 0 0 0\n").unwrap();
        assert_eq!((before, permille(before, now)), (Ticks { busy: 150, all: 1_000 }, Some(375)));
        assert_eq!((permille(now, before), permille(now, now), ticks("")), (None, None, None));
    }

    #[test]
    fn resident_memory_is_read_where_it_is_told() {
        assert_eq!(resident("Name:\tsegue\nVmRSS:\t   12000 kB\n"), Some(12_288_000));
        assert_eq!(resident("Name:\tsegue\n"), None);
    }
}
