//! The nftables(8) rules of a card, loaded in one transaction by the program `nft`.
//!
//! The program is called once for each card, never for a sandbox: the kernel itself adds sandboxes
//! to the sets that count their connections. The host's rules of a default network are held by an
//! `nft` process that keeps running.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::net::if_::if_nametoindex;

use super::namespace;
use super::netlink::Netlink;
use crate::error::{Error, Step, Stepped as _};
use crate::rules::Rule;
use crate::spec::{CardSpec, Egress, Protocol, RESOLVER};

/// Returns the rules of a card whose link is the device `link`.
pub(crate) fn card_rules(spec: &CardSpec, link: &str) -> String {
    let CardSpec { limits, rules, .. } = spec;
    let (first, last) = (limits.ports.start(), limits.ports.end());
    let mut text = String::from("table ip card {\n");
    text.push_str(
        "set connections { type ipv4_addr; flags dynamic; size 65536; }\n\
         set lookups { type ipv4_addr; flags dynamic; size 65536; }\n",
    );
    let policy = |rule| if rules.has(rule) { "drop" } else { "accept" };
    line(&mut text, "chain input { type filter hook input priority filter; policy accept;");
    line(&mut text, &format!("iifname {{ tun0, \"{link}\" }} {}\n}}", policy(Rule::Card)));
    line(&mut text, "chain forward { type filter hook forward priority filter; policy drop;");
    line(&mut text, "ct state invalid drop");
    line(&mut text, "ct state established,related accept");
    line(&mut text, &format!("iifname tun0 oifname tun0 {}", policy(Rule::Neighbours)));
    line(&mut text, &format!("iifname \"{link}\" oifname tun0 {}", policy(Rule::Inwards)));
    line(&mut text, &format!("iifname tun0 oifname \"{link}\" jump out\n}}"));
    out(&mut text, spec);
    line(&mut text, "chain answer { type nat hook prerouting priority dstnat;");
    if let Some(resolver) = spec.resolver {
        for protocol in ["udp", "tcp"] {
            let query = format!("iifname tun0 ip daddr {RESOLVER} {protocol} dport 53");
            line(&mut text, &format!("{query} dnat to {resolver}:53"));
        }
    }
    line(&mut text, "}\nchain leave { type nat hook postrouting priority srcnat;");
    let ports = format!("masquerade to :{first}-{last} fully-random");
    line(&mut text, &format!("oifname \"{link}\" meta l4proto {{ tcp, udp }} {ports}"));
    line(&mut text, &format!("oifname \"{link}\" masquerade\n}}\n}}"));
    text
}

/// Appends the chain for new outbound connections.
fn out(text: &mut String, spec: &CardSpec) {
    let (limits, rules) = (&spec.limits, spec.rules);
    let full = "reject with icmp admin-prohibited";
    line(text, "chain out {");
    let lookups = limits.sandbox_lookups_max;
    line(text, &format!("ct original ip daddr {RESOLVER} ct status dnat jump lookup"));
    if rules.has(Rule::LinkLocal) {
        line(text, "ip daddr 169.254.0.0/16 drop");
    }
    line(text, "meta l4proto != { tcp, udp, icmp } drop");
    let connections = limits.sandbox_connections_max;
    line(text, &format!("add @connections {{ ip saddr ct count over {connections} }} {full}"));
    line(text, &format!("ct count over {} {full}", limits.connections_max));
    if rules.has(Rule::Egress) {
        for egress in &spec.egress {
            line(text, &egress_line(egress));
        }
        line(text, full);
    } else {
        line(text, "accept");
    }
    line(text, "}\nchain lookup {");
    line(text, &format!("add @lookups {{ ip saddr ct count over {lookups} }} {full}"));
    line(text, "accept\n}");
}

fn egress_line(Egress { to, protocol }: &Egress) -> String {
    let to = to.trunc();
    match protocol {
        Protocol::Any => format!("ip daddr {to} accept"),
        Protocol::Icmp => format!("ip daddr {to} meta l4proto icmp accept"),
        Protocol::Tcp(ports) => {
            format!("ip daddr {to} tcp dport {}-{} accept", ports.start(), ports.end())
        }
        Protocol::Udp(ports) => {
            format!("ip daddr {to} udp dport {}-{} accept", ports.start(), ports.end())
        }
    }
}

fn line(text: &mut String, words: &str) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "{words}");
}

/// Loads rules in the calling thread's namespace, all or none.
pub(crate) fn load(rules: &str) -> Result<(), Error> {
    let mut child = start(&["-f", "-"])?;
    let fed = child.stdin.take().map_or(Ok(()), |mut input| input.write_all(rules.as_bytes()));
    let output = child.wait_with_output().step(Step::LoadRules)?;
    if output.status.success() {
        return fed.step(Step::LoadRules);
    }
    Err(refused(&output.stderr))
}

fn start(arguments: &[&str]) -> Result<Child, Error> {
    let mut command = Command::new("nft");
    command.args(arguments).env_clear().env("PATH", PATH);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => Error::Unavailable {
            step: Step::LoadRules,
            what: "the program nft (Debian package nftables)",
            why: error.to_string(),
        },
        _ => Error::at(Step::LoadRules, error),
    })
}

/// Turns the program's error output into an error.
fn refused(said: &[u8]) -> Error {
    let mut why = String::from_utf8_lossy(said).into_owned();
    why.truncate(why.floor_char_boundary(TEXT_MAX));
    if ["not permitted", "not supported"].iter().any(|it| why.contains(it)) {
        let what = "nftables in the kernel, with NAT, connection counts and reject";
        return Error::Unavailable { step: Step::LoadRules, what, why };
    }
    Error::Failed { step: Step::LoadRules, source: io::Error::other(why) }
}

/// Rules in the host's namespace that end with this process, however it ends.
///
/// The table has an owner (`flags owner`): an `nft` process that waits for commands on its standard
/// input. When this process ends, the input is closed, `nft` ends, and the kernel deletes the
/// table.
#[derive(Debug)]
pub(crate) struct HostRules {
    input: Option<ChildStdin>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl HostRules {
    /// Creates the table `inet NAME` by one transaction, which must be one line, and holds it.
    ///
    /// If the `nft` process ends by itself, the device NAME is deleted, so that nothing passes
    /// without the rules.
    pub(crate) fn hold(host: Arc<OwnedFd>, name: &str, rules: &str) -> Result<Self, Error> {
        let mut child = namespace::within(&host, || start(&["-i"]))?;
        let mut input = child.stdin.take();
        let fed = input.as_mut().map_or(Ok(()), |input| input.write_all(rules.as_bytes()));
        let held = fed.step(Step::LoadRules).and_then(|()| {
            let end = Instant::now() + LOADED_WITHIN;
            loop {
                let table = ["list", "table", "inet", name];
                let listed = namespace::within(&host, || {
                    start(&table)?.wait_with_output().step(Step::LoadRules)
                })?;
                if listed.status.success() {
                    return Ok(());
                }
                if Instant::now() > end {
                    return Err(refused(b"the table did not come into being"));
                }
                thread::sleep(Duration::from_millis(5));
            }
        });
        if let Err(error) = held {
            drop(input);
            // `nft` prints its error and ends when its input is closed.
            let said = child.wait_with_output().step(Step::LoadRules)?.stderr;
            return Err(if said.is_empty() { error } else { refused(&said) });
        }
        let ended = Arc::new(AtomicBool::new(false));
        let (wanted, name) = (Arc::clone(&ended), name.to_owned());
        let thread = thread::Builder::new()
            .name("host-rules".into())
            .spawn(move || {
                drop(child.wait());
                if !wanted.load(Ordering::Acquire) {
                    // The device may already be gone.
                    drop(namespace::within(&host, || {
                        let device = if_nametoindex(name.as_str()).step(Step::FindDevice)?;
                        Netlink::open().step(Step::MakeLink)?.delete(device).step(Step::MakeLink)
                    }));
                }
            })
            .step(Step::StartThread)?;
        Ok(Self { input, ended, thread: Some(thread) })
    }
}

impl Drop for HostRules {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        self.input = None;
        if let Some(thread) = self.thread.take() {
            // The thread returns nothing, and its panic was already reported.
            drop(thread.join());
        }
    }
}

/// How long `nft` may take to create the table.
const LOADED_WITHIN: Duration = Duration::from_secs(3);
/// The search path for `nft`. The caller's environment is not used.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// The most output of `nft` that is kept, in bytes.
const TEXT_MAX: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::Rules;
    use crate::spec::Link;

    fn spec() -> CardSpec {
        let vpc = Arc::new(std::fs::File::open("/dev/null").unwrap().into());
        let link = Link::Veth { vpc, name: "card0".into(), bridge: None };
        CardSpec::new(link, "10.0.0.5/16".parse().unwrap())
    }

    #[test]
    fn only_what_the_egress_rules_name_is_accepted() {
        let mut spec = spec();
        let to = "10.0.9.9/24".parse().unwrap();
        spec.egress = vec![Egress { to, protocol: Protocol::Tcp(5432..=5433) }];
        let text = card_rules(&spec, "eth0");
        assert!(text.contains("ip daddr 10.0.9.0/24 tcp dport 5432-5433 accept\nreject"), "{text}");
        spec.rules = Rules::all().without(Rule::Egress);
        assert!(!card_rules(&spec, "eth0").contains("5432"));
    }

    #[test]
    fn dns_goes_to_the_networks_resolver_or_nowhere() {
        let mut spec = spec();
        assert!(!card_rules(&spec, "eth0").contains("dnat to"));
        spec.resolver = Some("10.0.0.2".parse().unwrap());
        let text = card_rules(&spec, "eth0");
        assert_eq!(text.matches("dnat to 10.0.0.2:53").count(), 2);
    }
}
