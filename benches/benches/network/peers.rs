//! Peers that give a namespace a network, each from the world's host.

use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::world::{World, ip, namespace, path, within};

/// A namespace with a network of a peer's.
pub(crate) struct Network {
    pub(crate) namespace: Arc<OwnedFd>,
    /// How long the peer took to make it.
    pub(crate) took: Duration,
    end: Option<Box<dyn FnOnce()>>,
}

impl Network {
    fn new(namespace: Arc<OwnedFd>, begun: Instant, end: impl FnOnce() + 'static) -> Self {
        Self { namespace, took: begun.elapsed(), end: Some(Box::new(end)) }
    }

    /// Gives the network back, and returns how long that took.
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

/// A veth pair to the host and a route, by four calls of `ip`.
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
        // The addresses' files are of no use after the last; an earlier one finds the folder in use.
        drop(std::fs::remove_dir_all(&folder));
    }))
}

pub(crate) fn slirp(world: &World) -> Result<Network, String> {
    let namespace = namespace();
    let begun = Instant::now();
    let mut command = Command::new("slirp4netns");
    // The program writes a byte to its descriptor 1 when the network is there.
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

fn end(mut child: Child) {
    // It may have ended by itself.
    drop(child.kill());
    drop(child.wait());
}
