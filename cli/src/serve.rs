//! The long-running commands: from their configuration to what their crates offer.

use broker_adapter::shell::Shell;

use crate::Failure;
use crate::args::{ConfigArguments, MigratorArguments, SidecarArguments};
use crate::config::{ConfigError, load};
use crate::traces::Traces;
use crate::with_parent;

/// Serves REST and carries migrations out.
///
/// # Errors
/// If its ports, its broker or its journal cannot be had, or another migrator took over.
pub async fn migrator(arguments: &MigratorArguments, shell: Shell) -> Result<(), Failure> {
    let named = [("listen", &arguments.listen), ("broker", &arguments.broker)];
    let config: migrator::Config = read("migrator", &arguments.config, &named)?;
    migrator::run(config, shell).await.map_err(crate::other)
}

/// Runs beside the services of one device; they end with it.
///
/// # Errors
/// If its ports, its broker or its services cannot be had, or another process has its name.
pub async fn sidecar(arguments: &SidecarArguments, traces: &Traces, shell: Shell) -> Result<(), Failure> {
    let named = [("node", &arguments.node), ("broker", &arguments.broker), ("admin", &arguments.admin)];
    let mut config: sidecar::Config = read("sidecar", &arguments.config, &named)?;
    config.services.iter_mut().for_each(|service| service.replace_state |= arguments.replace_state);
    config.launcher = with_parent::launcher().map_err(crate::other)?;
    config.traceparent = traces.traceparent();
    sidecar::run(config, shell).await.map_err(crate::other)
}

/// A command's configuration, with the flags that were given.
///
/// # Errors
/// [`ConfigError`] names file, line and key.
pub fn read<T: serde::de::DeserializeOwned>(
    command: &str,
    arguments: &ConfigArguments,
    named: &[(&str, &Option<String>)],
) -> Result<T, ConfigError> {
    load(command, arguments.config.as_deref(), std::env::vars_os(), &arguments.overrides(named)?)
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use broker_adapter::nats::NatsOptions;

    use super::*;
    use crate::broker::BrokerConfig;

    fn sample<T: serde::de::DeserializeOwned>(command: &str, name: &str) -> T {
        let folder: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs");
        load(command, Some(&folder.join(name)), std::iter::empty(), &[]).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn every_sample_can_be_loaded() {
        let broker: BrokerConfig = sample("broker", "broker.toml");
        assert_eq!(broker.listen, "127.0.0.1:7070");
        let migrator: migrator::Config = sample("migrator", "migrator.toml");
        assert_eq!(migrator.listen, "127.0.0.1:7272");
        for (name, node, create) in [("sidecar-edge-a.toml", "edge-a", true), ("sidecar-edge-b.toml", "edge-b", false)]
        {
            let sidecar: sidecar::Config = sample("sidecar", name);
            assert_eq!((sidecar.node.as_str(), sidecar.services[0].create), (node, create));
            assert_eq!(sidecar.broker, format!("segue://{}", broker.listen));
        }
        for name in ["python/nondeterministic.toml", "python/oneway.toml"] {
            let sidecar: sidecar::Config = sample("sidecar", name);
            assert_eq!(sidecar.broker, format!("segue://{}", broker.listen));
            assert!(sidecar.services[0].runs_replica());
        }
    }

    /// A sample whose commented lines with a key lost their mark.
    fn uncommented<T: serde::de::DeserializeOwned>(command: &str, name: &str) -> T {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs").join(name);
        let text = std::fs::read_to_string(path).unwrap();
        let is_word = |word: &str| word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        let is_key = |line: &str| {
            let line = line.trim_start_matches("# ");
            line.starts_with('[') || line.split_once(" = ").is_some_and(|(key, _)| is_word(key))
        };
        let all: Vec<&str> =
            text.lines().map(|line| if is_key(line) { line.trim_start_matches("# ") } else { line }).collect();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, all.join("\n").as_bytes()).unwrap();
        load(command, Some(file.path()), std::iter::empty(), &[]).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn the_sample_on_nats_can_be_loaded_with_what_it_has_commented_out_too() {
        let plain: sidecar::Config = sample("sidecar", "sidecar-nats.toml");
        assert!(plain.broker.starts_with("nats://") && plain.nats == NatsOptions::default());
        let full: sidecar::Config = uncommented("sidecar", "sidecar-nats.toml");
        assert_eq!((full.nats.replicas, full.nats.monitoring_url.len()), (Some(3), 1));
        assert!(full.nats.tls.required && full.nats.placement.tags == ["ssd"] && full.nats.nkey.is_some());
    }

    #[test]
    fn what_the_samples_have_commented_out_about_guarded_brokers_can_be_loaded() {
        let broker: BrokerConfig = uncommented("broker", "broker.toml");
        assert!(broker.token_file.is_some() && broker.tls.is_some() && broker.admin.is_some() && !broker.allow_remote);
        let migrator: migrator::Config = uncommented("migrator", "migrator.toml");
        assert!(migrator.tls.is_some() && migrator.auth.tokens.is_some());
        let host = migrator.host.unwrap();
        assert!(host.url().starts_with("segues://") && host.token_file == broker.token_file && host.tls == broker.tls);
        let sidecar: sidecar::Config = uncommented("sidecar", "sidecar-edge-a.toml");
        assert!(sidecar.segue == migrator.segue && sidecar.segue.token_file.is_some() && sidecar.segue.ca.is_some());
    }

    #[test]
    fn the_sample_for_kafka_can_be_loaded_and_what_does_not_fit_is_refused_with_file_line_and_key() {
        let sidecar: sidecar::Config = sample("sidecar", "kafka.toml");
        assert!(sidecar.broker.starts_with("kafka://"));
        assert_eq!(
            sidecar.kafka,
            broker_adapter::kafka::KafkaOptions {
                min_insync_replicas: Some(1.try_into().unwrap()),
                ..Default::default()
            }
        );
        for (line, told) in [
            ("replicas = 0", "no number of copies"),
            ("prefix = 'A.b'", "topic names"),
            ("copies = 3", "copies"),
            ("properties = { acks = '1' }", "acks"),
            ("min_insync_replicas = 2", "kafka.replicas"),
        ] {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            let text = format!("node = 'a'\nbroker = 'kafka://b:1'\nadmin = 'c'\n\n[kafka]\n{line}\n");
            std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
            let refused = load::<sidecar::Config>("sidecar", Some(file.path()), std::iter::empty(), &[]).unwrap_err();
            let said = refused.to_string().replace(&file.path().display().to_string(), "FILE");
            let placed = said.starts_with("FILE:5:") || said.starts_with("FILE:6:");
            assert!(placed && said.contains("kafka") && said.contains(told), "{said}");
        }
    }

    #[test]
    fn a_proof_that_cannot_be_is_refused_with_its_line_and_key() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let text = "node = 'a'\nbroker = 'b'\nadmin = 'c'\n[[service]]\nname = 'd'\nlisten = 'e'\n\
                    [service.settings]\nignore = ['body', 'json:header']\n";
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        let error = load::<sidecar::Config>("sidecar", Some(file.path()), std::iter::empty(), &[]).unwrap_err();
        let said = error.to_string().replace(&file.path().display().to_string(), "FILE");
        let refused = |more: &str| {
            std::fs::write(file.path(), format!("{}{more}\n", text.split_once("[service.settings]").unwrap().0))
                .unwrap();
            let error = load::<sidecar::Config>("sidecar", Some(file.path()), std::iter::empty(), &[]).unwrap_err();
            error.to_string().replace(&file.path().display().to_string(), "FILE")
        };
        for wrong in ["state_hash = { http = 'hash' }", "state_hash = { command = [] }", "proof = 'some'"] {
            let said = refused(wrong);
            assert!(said.starts_with("FILE:7:") && said.contains("key \"service.0."), "{said}");
        }
        assert!(said.starts_with("FILE:8:10: key \"service.0.settings.ignore\": \"json:header\""), "{said}");
    }

    #[test]
    fn the_gateway_is_an_ingress_without_a_replica() {
        let gateway: sidecar::Config = sample("sidecar", "sidecar-gateway.toml");
        let edge: sidecar::Config = sample("sidecar", "sidecar-edge-a.toml");
        assert!(!gateway.services[0].runs_replica() && edge.services[0].runs_replica());
        assert_eq!(gateway.services[0].name, edge.services[0].name);
    }

    #[test]
    fn the_samples_of_services_can_be_loaded() {
        for (name, restarts) in [("redis/sidecar.toml", true), ("sqlite/sidecar.toml", true)] {
            let sidecar: sidecar::Config = sample("sidecar", name);
            let state = sidecar.services[0].state.as_ref().expect("it has a state");
            assert_eq!(state.needs_restart(), restarts, "{name}");
        }
    }

    #[test]
    fn an_attached_service_that_cannot_be_loaded_is_refused_with_file_line_and_key() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let text = "node = 'a'\nbroker = 'b'\nadmin = 'c'\n\n[[service]]\nname = 'd'\nlisten = 'e'\n\
                    attach = 'http://127.0.0.1:80'\nstate = { kind = 'directory', path = '/g' }\n";
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        let refused = load::<sidecar::Config>("sidecar", Some(file.path()), std::iter::empty(), &[]).unwrap_err();
        let said = refused.to_string().replace(&file.path().display().to_string(), "FILE");
        assert!(said.starts_with("FILE:5:") && said.contains("service.0") && said.contains("`run` instead"), "{said}");
    }

    #[test]
    fn the_limits_of_the_samples_are_the_defaults() {
        let sample: sidecar::Config = sample("sidecar", "sidecar-edge-a.toml");
        let text = "node = 'a'\nbroker = 'b'\nadmin = 'c'\n[[service]]\nname = 'd'\nlisten = 'e'\nrun = ['f']\n\
                    state = { kind = 'http', path = '/g' }\n";
        let defaults: sidecar::Config = toml::from_str(text).unwrap();
        let (sample, default) = (&sample.services[0], &defaults.services[0]);
        assert_eq!(sample.body_limit_bytes, default.body_limit_bytes);
        assert_eq!(sample.parking_limit_bytes, default.parking_limit_bytes);
        assert_eq!(sample.parking_limit_requests, default.parking_limit_requests);
        assert_eq!(sample.reply_timeout_ms, default.reply_timeout_ms);
        assert_eq!(sample.delivery_timeout_ms, default.delivery_timeout_ms);
        assert_eq!(sample.start_timeout_ms, default.start_timeout_ms);
    }
}
