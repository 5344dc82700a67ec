//! What a fault does to the processes, and what takes it back.

use std::time::Duration;

use rustix::process::Pid;

use super::{Fault, Victim};
use crate::harness::{Cluster, resume, state, wait_for};

/// How long a stopped process stands still: longer than a delivery may take in these cells, shorter than a node is silent.
pub const STOPPED: Duration = Duration::from_millis(1_200);
/// How long a killed broker is away, so that others notice.
const AWAY: Duration = Duration::from_millis(200);

/// A fault that lasts.
pub enum Lasting {
    /// These are stopped.
    Stopped(Vec<Pid>),
    /// This process was killed and is to be started again.
    Down(Victim),
    /// Nothing is to be taken back.
    Nothing,
}

fn node(victim: Victim) -> &'static str {
    match victim {
        Victim::SourceSidecar | Victim::SourceService => "edge-a",
        _ => "edge-b",
    }
}

/// A fault that struck.
pub struct Struck {
    /// What is to be taken back.
    pub lasting: Lasting,
    /// What shows that it happened.
    pub shown: String,
    /// When it had been done, in wall milliseconds.
    pub at_ms: u64,
}

/// Does it.
///
/// # Panics
/// If it did not happen.
pub async fn strike(cluster: &mut Cluster, fault: Fault) -> Struck {
    match fault {
        Fault::Kill(victim) => kill(cluster, victim).await,
        Fault::Stop(victim) => {
            let pids = stop(cluster, victim).await;
            let (shell, at_ms) = (cluster.shell.clone(), cluster.shell.wall_ms());
            wait_for(&shell, "the kernel to stop the victim", || async {
                pids.iter().all(|pid| state(*pid) == Some('T')).then_some(())
            })
            .await;
            let shown = format!("{} in state T for {} ms", numbers(&pids), STOPPED.as_millis());
            Struck { lasting: Lasting::Stopped(pids), shown, at_ms }
        }
        Fault::Cancel | Fault::PauseRunsOut => {
            Struck { lasting: Lasting::Nothing, shown: String::new(), at_ms: cluster.shell.wall_ms() }
        }
    }
}

async fn kill(cluster: &mut Cluster, victim: Victim) -> Struck {
    let process = match victim {
        Victim::SourceService | Victim::TargetService => {
            instance(cluster, node(victim)).await;
            let pids: Vec<Pid> = cluster.instances(node(victim)).into_iter().map(|instance| instance.pid).collect();
            cluster.kill_service(node(victim));
            let (shell, at_ms) = (cluster.shell.clone(), cluster.shell.wall_ms());
            wait_for(&shell, "the killed service's end", || async {
                pids.iter().all(|pid| matches!(state(*pid), None | Some('Z'))).then_some(())
            })
            .await;
            return Struck { lasting: Lasting::Nothing, shown: format!("{} killed", numbers(&pids)), at_ms };
        }
        Victim::SourceSidecar | Victim::TargetSidecar => cluster.process(node(victim)),
        Victim::Migrator => &mut cluster.migrator,
        Victim::Broker => {
            let pids = cluster.broker.pids();
            cluster.broker.kill();
            let shown = format!("{} killed", numbers(&pids));
            return Struck { lasting: Lasting::Down(victim), shown, at_ms: cluster.shell.wall_ms() };
        }
    };
    let pid = process.pid();
    process.kill();
    Struck {
        lasting: Lasting::Down(victim),
        shown: format!("{} killed", numbers(&[pid])),
        at_ms: cluster.shell.wall_ms(),
    }
}

async fn stop(cluster: &mut Cluster, victim: Victim) -> Vec<Pid> {
    let process = match victim {
        Victim::SourceService | Victim::TargetService => {
            instance(cluster, node(victim)).await;
            return cluster.stop_service(node(victim));
        }
        Victim::SourceSidecar | Victim::TargetSidecar => cluster.process(node(victim)),
        Victim::Migrator => &mut cluster.migrator,
        Victim::Broker => {
            cluster.broker.pause();
            return cluster.broker.pids();
        }
    };
    process.pause();
    vec![process.pid()]
}

/// Waits until the node has an instance: one that is loaded is started by the phase itself.
async fn instance(cluster: &Cluster, node: &str) {
    let what = format!("an instance on {node}");
    wait_for(&cluster.shell, &what, || async { (!cluster.instances(node).is_empty()).then_some(()) }).await;
}

/// Lets it last, and takes it back as an operator's supervisor would.
pub async fn take_back(cluster: &mut Cluster, lasting: Lasting) {
    match lasting {
        Lasting::Stopped(pids) => {
            cluster.shell.sleep(STOPPED).await;
            pids.into_iter().for_each(resume);
        }
        Lasting::Down(victim) => {
            cluster.shell.sleep(AWAY).await;
            match victim {
                Victim::Migrator => {
                    cluster.migrator.restart();
                    cluster.migrator_ready().await;
                }
                Victim::Broker => cluster.broker.restart(),
                _ => cluster.process(node(victim)).restart(),
            }
        }
        Lasting::Nothing => {}
    }
}

/// Pids, for people.
pub fn numbers(pids: &[Pid]) -> String {
    let names: Vec<String> = pids.iter().map(|pid| format!("pid {}", pid.as_raw_pid())).collect();
    names.join(", ")
}
