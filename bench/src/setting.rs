//! What the figures were measured on and with.

use std::fs;
use std::process::Command;

use anyhow::Result;

use crate::lab::server_congestion;
use crate::options::Options;
use crate::scheduling;
use crate::servers::Kind;
use crate::tools::Tools;

/// In the order in which it is said.
pub(crate) fn describe(options: &Options, tools: &Tools) -> Result<Vec<(String, String)>> {
    let plan = &options.plan;
    let cores = &plan.cores;
    let mut setting = vec![
        ("processor", processor()),
        ("kernel", first_line("/proc/sys/kernel/osrelease")),
        (
            "load before",
            format!("{}; nice {}", first_line("/proc/loadavg"), options.nice),
        ),
        (
            "cores",
            format!(
                "server {}, client {}, internet {}",
                cores.server, cores.client, cores.internet
            ),
        ),
        ("path", plan.path.describe().to_owned()),
        ("TCP of the ends", plan.congestion.clone()),
        (
            "TCP of a relaying server",
            format!(
                "{} towards the internet",
                server_congestion(&plan.congestion)
            ),
        ),
        (
            "rounds",
            format!(
                "{} with {:?} for each transfer",
                options.rounds, options.window
            ),
        ),
        (
            "slowed core",
            format!("{:.0} % of one", options.share * 100.0),
        ),
        (
            "autogroups",
            if scheduling::are_on() { "on" } else { "off" }.to_owned(),
        ),
        ("idle cores", scheduling::idle_cores().to_owned()),
        (
            "commit",
            output("git", &["describe", "--always", "--dirty"]),
        ),
        ("client", tools.version("wireguard-go")),
    ];
    for kind in &options.servers {
        let version = match kind {
            Kind::PopupRaw | Kind::PopupSocket => "this commit, release build".to_owned(),
            Kind::KernelNat => "the kernel's, with iptables MASQUERADE".to_owned(),
            kind => tools.version(kind.name()),
        };
        setting.push((kind.name(), version));
    }
    let own = |(name, value): (&str, String)| (name.to_owned(), value);
    Ok(setting.into_iter().map(own).collect())
}

fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let value = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(": "))
            .map_or("unknown", |(_, value)| value)
            .to_owned()
    };
    let count = text
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    format!(
        "{count} of {}, model {}",
        value("model name"),
        value("model\t")
    )
}

fn first_line(path: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().next().unwrap_or("unknown").to_owned()
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let output = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    output.unwrap_or_else(|_| "unknown".to_owned())
}

/// What earlier figures were taken on, and under other names what those that are added are: what
/// differs, and servers that are new.
pub(crate) fn with_added(
    before: Vec<(String, String)>,
    added: Vec<(String, String)>,
) -> Vec<(String, String)> {
    let mut setting = before;
    for (name, value) in added {
        match setting.iter().find(|(known, _)| *known == name) {
            None => setting.push((name, value)),
            Some((_, known)) if *known != value => {
                setting.push((format!("{name} (added later)"), value));
            }
            Some(_) => {}
        }
    }
    setting
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_does_not_stand_for_what_was_there() {
        let pairs = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
            pairs.iter().map(owned).collect()
        };
        let before = pairs(&[("rounds", "5"), ("kernel", "6"), ("wgslirpy", "0.2")]);
        let added = pairs(&[("rounds", "2"), ("kernel", "6"), ("boringtun-cli", "0.7")]);
        let wanted = [
            ("rounds", "5"),
            ("kernel", "6"),
            ("wgslirpy", "0.2"),
            ("rounds (added later)", "2"),
            ("boringtun-cli", "0.7"),
        ];
        assert_eq!(with_added(before, added), pairs(&wanted));
    }
}
