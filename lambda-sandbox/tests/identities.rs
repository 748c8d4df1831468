//! Sandboxes share no user id. The test reads the ids on the host, where they decide who may signal
//! a process or read a file.

#![cfg(all(feature = "linux", target_os = "linux", target_arch = "x86_64"))]

mod common;

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

use lambda_sandbox::linux::{LinuxBackend, Settings};
use lambda_sandbox::{Backend, Error, Root, SandboxSpec};

fn backend(settings: &Settings) -> Option<LinuxBackend> {
    common::backend_with(settings, "user ids")
}

fn spec(seconds: &str) -> SandboxSpec {
    SandboxSpec::new(Root::of_machine(), ["/bin/sleep", seconds])
}

/// Returns the user and group ids of the processes on this host with the command line `sleep
/// seconds`: real, effective, saved and file system ids, from `/proc/PID/status`.
fn ids_of(seconds: &str) -> Vec<(BTreeSet<u32>, BTreeSet<u32>)> {
    let wanted = format!("/bin/sleep\0{seconds}\0");
    let read = |path: std::path::PathBuf| std::fs::read_to_string(path).unwrap_or_default();
    (std::fs::read_dir("/proc").expect("proc").flatten())
        .filter(|entry| read(entry.path().join("cmdline")) == wanted)
        .map(|entry| {
            let status = read(entry.path().join("status"));
            let numbers = |name: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(name));
                line.unwrap_or_default().split_whitespace().flat_map(str::parse).collect()
            };
            (numbers("Uid:"), numbers("Gid:"))
        })
        .collect()
}

async fn running(seconds: &str) -> (BTreeSet<u32>, BTreeSet<u32>) {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        if let [one] = ids_of(seconds).as_slice() {
            return one.clone();
        }
        assert!(Instant::now() < until, "{:?}", ids_of(seconds));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn two_live_sandboxes_share_no_id_outside() {
    let base = 0x6A00_0000;
    let Some(backend) = backend(&Settings::default().with_id_base(base)) else { return };
    // Unlikely numbers distinguish these programs from others on this machine.
    let names = [1, 2].map(|number| format!("7{}.{number}", std::process::id()));
    let mut seen = Vec::new();
    let mut lives = Vec::new();
    for name in &names {
        let created = backend.create(spec(name)).await.expect("created");
        lives.push((created.killer(), tokio::spawn(created.run())));
        seen.push(running(name).await);
    }
    let ((users, groups), (other_users, other_groups)) = (&seen[0], &seen[1]);
    for ids in [users, groups, other_users, other_groups] {
        assert_eq!(ids.len(), 1, "{seen:?}");
        assert!(ids.iter().all(|id| (base..base + 0x100_0000).contains(id)), "{seen:?}");
    }
    assert!(users.is_disjoint(other_users) && groups.is_disjoint(other_groups), "{seen:?}");
    for (killer, life) in lives {
        killer.kill();
        life.await.expect("joined").expect("run");
    }
}

#[tokio::test]
async fn hosts_with_bases_that_overlap_share_no_id() {
    // Each base is one host's range below the one before, and each host's number is one higher. If
    // hosts did not check the ids in use, all would have the same.
    let base = 0x6C00_0000;
    let Some(first) = backend(&Settings::default().with_id_base(base)) else { return };
    let mut seen = BTreeSet::new();
    let mut hosts = vec![first];
    for step in 1..4 {
        let settings = Settings::default().with_id_base(base - 16_384 * step);
        hosts.push(LinuxBackend::with_settings(&settings).expect("a host"));
    }
    let mut lives = Vec::new();
    for (number, host) in hosts.iter().enumerate() {
        let name = format!("8{}.{number}", std::process::id());
        let created = host.create(spec(&name)).await.expect("created");
        lives.push((created.killer(), tokio::spawn(created.run())));
        let (users, _) = running(&name).await;
        assert!(users.iter().all(|id| seen.insert(*id)), "{users:?} in {seen:?}");
    }
    for (killer, life) in lives {
        killer.kill();
        life.await.expect("joined").expect("run");
    }
}

#[tokio::test]
async fn sandboxes_in_turn_share_no_user_namespace() {
    let Some(backend) = backend(&Settings::default()) else { return };
    // An open file keeps a namespace, so that its number names no other one.
    let (mut held, mut ahead) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let sandbox = backend.create(spec("60")).await.expect("created");
        let groups = backend.groups();
        let pid = (groups.iter())
            .find_map(|it| std::fs::read_to_string(it.join("cgroup.procs")).ok())
            .and_then(|pids| Some(pids.lines().next()?.to_owned()))
            .expect("its init");
        let process = std::path::Path::new("/proc").join(pid);
        let map = until_mapped(&process).await;
        // The init's third argument: `U` names a namespace that the host has made.
        let command = std::fs::read_to_string(process.join("cmdline")).expect("it runs");
        ahead.push(command.split('\0').nth(3).expect("flags").contains('U'));
        held.push((std::fs::File::open(process.join("ns/user")).expect("its namespace"), map));
        sandbox.destroy().await.expect("destroyed");
    }
    let number = |file: &std::fs::File| file.metadata().expect("a namespace").ino();
    let numbers: BTreeSet<_> = held.iter().map(|(file, _)| number(file)).collect();
    assert_eq!(numbers.len(), held.len(), "{held:?}");
    assert_eq!(ahead, [false, true, true]);
    for (_, map) in &held {
        assert_eq!(map.len(), 2, "{held:?}");
        assert_eq!(map, &held[0].1);
    }
}

/// Waits until a process is in a sandbox's user namespace, and returns the lines of its map.
async fn until_mapped(process: &std::path::Path) -> Vec<Vec<u32>> {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let map = std::fs::read_to_string(process.join("uid_map")).expect("it runs");
        let numbers = |line: &str| line.split_whitespace().flat_map(str::parse).collect();
        let lines: Vec<Vec<u32>> = map.lines().map(numbers).collect();
        if lines.len() == 2 {
            return lines;
        }
        assert!(Instant::now() < until, "{map}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[test]
fn ids_of_people_are_refused() {
    let refused = LinuxBackend::with_settings(&Settings::default().with_id_base(1000));
    assert!(matches!(refused, Err(Error::Invalid { setting: "id_base", .. })), "{refused:?}");
}
