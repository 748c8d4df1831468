//! Peers that give a namespace a network. Each runs in the namespace of the world's host.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::world::{World, ip, namespace, path, within};

/// A namespace with a network that a peer made.
pub(crate) struct Network {
    pub(crate) namespace: Arc<OwnedFd>,
    /// The time that the peer took to make the network.
    pub(crate) took: Duration,
    end: Option<Box<dyn FnOnce()>>,
}

impl Network {
    fn new(namespace: Arc<OwnedFd>, begun: Instant, end: impl FnOnce() + 'static) -> Self {
        Self { namespace, took: begun.elapsed(), end: Some(Box::new(end)) }
    }

    /// Removes the network. Returns the time that this took.
    pub(crate) fn detach(&mut self) -> Duration {
        let begun = Instant::now();
        if let Some(end) = self.end.take() {
            end();
        }
        begun.elapsed()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.detach();
    }
}

/// Makes a veth pair to the host and a default route, by six calls of `ip`.
pub(crate) fn plain(world: &World) -> Result<Network, String> {
    let namespace = namespace();
    let begun = Instant::now();
    let host = &world.host;
    ip(host, &format!("link add v0 type veth peer name eth0 netns {}", path(&namespace)))?;
    ip(host, "address add 172.30.1.1/24 dev v0")?;
    ip(host, "link set v0 up")?;
    ip(&namespace, "address add 172.30.1.2/24 dev eth0")?;
    ip(&namespace, "link set eth0 up")?;
    ip(&namespace, "route add default via 172.30.1.1")?;
    let host = Arc::clone(host);
    Ok(Network::new(namespace, begun, move || ip(&host, "link delete v0").unwrap()))
}

pub(crate) fn cni(world: &World) -> Result<Network, String> {
    let namespace = namespace();
    let folder = std::env::temp_dir().join(format!("bench-network-{}", std::process::id()));
    let settings = format!(
        r#"{{"cniVersion":"0.4.0","name":"bench","type":"bridge","bridge":"cni0","isGateway":true,
        "ipMasq":true,"ipam":{{"type":"host-local","subnet":"172.31.0.0/16","dataDir":"{}",
        "routes":[{{"dst":"0.0.0.0/0"}}]}}}}"#,
        folder.display()
    );
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let id = format!("bench{}", COUNT.fetch_add(1, Ordering::Relaxed));
    let (host, held) = (Arc::clone(&world.host), Arc::clone(&namespace));
    let call = move |verb: &str| -> Result<(), String> {
        let mut command = Command::new("/usr/lib/cni/bridge");
        command.env("CNI_COMMAND", verb).env("CNI_CONTAINERID", &id).env("CNI_IFNAME", "eth0");
        command.env("CNI_NETNS", path(&held)).env("CNI_PATH", "/usr/lib/cni");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = within(&host, || command.spawn()).map_err(|error| error.to_string())?;
        child.stdin.take().unwrap().write_all(settings.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let error = || String::from_utf8_lossy(&output.stdout).replace('\n', " ");
        output.status.success().then_some(()).ok_or_else(error)
    };
    let begun = Instant::now();
    call("ADD")?;
    Ok(Network::new(namespace, begun, move || {
        call("DEL").unwrap();
        // The networks of a run follow one another, so that no other one needs these addresses.
        drop(std::fs::remove_dir_all(&folder));
    }))
}

pub(crate) fn slirp(world: &World) -> Result<Network, String> {
    let namespace = namespace();
    let begun = Instant::now();
    let mut command = Command::new("slirp4netns");
    // slirp4netns writes a byte to descriptor 1 when the network is ready.
    command.args(["--configure", "--mtu=65520", "--ready-fd=1", "--netns-type=path"]);
    command.args([&path(&namespace), "tap0"]).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = within(&world.host, || command.spawn()).map_err(|error| error.to_string())?;
    let ready = child.stdout.as_mut().unwrap().read_exact(&mut [0]);
    let network = Network::new(namespace, begun, move || end(child));
    ready.map(|()| network).map_err(|error| error.to_string())
}

pub(crate) fn pasta(world: &World) -> Result<Network, String> {
    let namespace = namespace();
    let begun = Instant::now();
    let mut command = Command::new("pasta");
    let arguments = ["--config-net", "--foreground", "--quiet", "--runas", "0", "--netns-only"];
    command.args(arguments).args(["--netns", &path(&namespace)]).stderr(Stdio::piped());
    let mut child = within(&world.host, || command.spawn()).map_err(|error| error.to_string())?;
    while ip(&namespace, "route get 10.0.0.1").is_err() {
        if child.try_wait().unwrap().is_some() || begun.elapsed() > Duration::from_secs(3) {
            drop(child.kill());
            let output = child.wait_with_output().unwrap();
            return Err(String::from_utf8_lossy(&output.stderr).replace('\n', " "));
        }
    }
    Ok(Network::new(namespace, begun, move || end(child)))
}

pub(crate) fn wireguard_go(world: &World) -> Result<Network, String> {
    tunnel(world, Path::new("wireguard-go"), &["--foreground"])
}

pub(crate) fn boringtun(world: &World) -> Result<Network, String> {
    let folder = std::env::var_os("PEERS_DIR").map(PathBuf::from).unwrap_or_default();
    let program = folder.join("boringtun-cli");
    tunnel(world, &program, &["--foreground", "--disable-drop-privileges"])
}

/// Runs a program at both ends of a WireGuard tunnel over the host's loopback, and moves one device
/// into the sandbox's namespace.
fn tunnel(world: &World, program: &Path, arguments: &[&str]) -> Result<Network, String> {
    let namespace = namespace();
    let begun = Instant::now();
    let folder = std::env::temp_dir().join(format!("bench-keys-{}", std::process::id()));
    std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    let mut ends = Vec::new();
    let mut children = Vec::new();
    for name in ["wgbench0", "wgbench1"] {
        let private = run(&world.host, Command::new("wg").arg("genkey"))?;
        let file = folder.join(name);
        std::fs::write(&file, &private).map_err(|error| error.to_string())?;
        let text = File::open(&file).map_err(|error| error.to_string())?;
        let public = run(&world.host, Command::new("wg").arg("pubkey").stdin(text))?;
        let mut command = Command::new(program);
        command.args(arguments).arg(name).env("WG_PROCESS_FOREGROUND", "1");
        command.env("LOG_LEVEL", "silent").stdout(Stdio::null()).stderr(Stdio::null());
        children.push(within(&world.host, || command.spawn()).map_err(|it| it.to_string())?);
        ends.push((name, file, public.trim().to_owned()));
    }
    let network = Network::new(Arc::clone(&namespace), begun, move || {
        children.into_iter().for_each(end);
        drop(std::fs::remove_dir_all(&folder));
    });
    for (number, (name, file, _)) in ends.iter().enumerate() {
        let other = &ends[1 - number].2;
        let (own, far) = (51_901 + number, 51_902 - number);
        let file = file.display();
        let peer = format!("peer {other} allowed-ips 0.0.0.0/0 endpoint 127.0.0.1:{far}");
        let settings = format!("set {name} listen-port {own} private-key {file} {peer}");
        let end = Instant::now() + Duration::from_secs(3);
        // The program accepts settings some time after its start.
        while let Err(why) = run(&world.host, Command::new("wg").args(settings.split(' '))) {
            if Instant::now() > end {
                return Err(why);
            }
        }
    }
    ip(&world.host, &format!("link set wgbench0 netns {}", path(&namespace)))?;
    for (place, name, address) in
        [(&namespace, "wgbench0", "172.30.9.2/24"), (&world.host, "wgbench1", "172.30.9.1/24")]
    {
        ip(place, &format!("address add {address} dev {name}"))?;
        ip(place, &format!("link set {name} mtu 1420 up"))?;
    }
    ip(&namespace, "route add default dev wgbench0")?;
    Ok(network)
}

fn run(namespace: &OwnedFd, command: &mut Command) -> Result<String, String> {
    let output = within(namespace, || command.output()).map_err(|error| error.to_string())?;
    let error = || String::from_utf8_lossy(&output.stderr).replace('\n', " ");
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into())
        .ok_or_else(error)
}

fn end(mut child: Child) {
    // `kill` fails if the program has ended by itself.
    drop(child.kill());
    drop(child.wait());
}
