//! Many sandboxes behind one card, and the neighbour of a busy one.

use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lambda_network::{Card, CardSpec, InterfacePool, Limits, Rates, Tunnel};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::support::{Site, Vpc, connect, greet, possible};

#[test]
fn a_thousand_sandboxes_share_one_card() {
    if !possible("1,000 sandboxes behind one card") {
        return;
    }
    // Two descriptors for each sandbox.
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    if hard < 4096 {
        return test_support::left_out("1,000 sandboxes behind one card", "RLIMIT_NOFILE");
    }
    setrlimit(Resource::RLIMIT_NOFILE, hard.min(65_536), hard).unwrap();
    let vpc = Vpc::new("blue");
    let card = Card::start(vpc.card(5), |_| ()).unwrap();
    let tunnel = Tunnel::direct(&card, InterfacePool::new(64).unwrap()).unwrap();
    let sandboxes: Vec<_> = (0..1000).map(|_| tunnel.attach(Rates::default()).unwrap()).collect();
    assert_eq!(card.sandboxes(), 1000);
    for sandbox in &sandboxes {
        assert_eq!(greet(sandbox, "10.0.0.3:80").unwrap(), "blue 10.0.1.5");
    }
    // Releasing them takes bounded time: the last is as fast as the first, and the card has room
    // again.
    drop(sandboxes);
    assert_eq!(card.sandboxes(), 0);
    assert!(greet(&tunnel.attach(Rates::default()).unwrap(), "10.0.0.3:80").is_ok());
}

#[test]
fn the_neighbour_of_a_flooding_sandbox_is_served() {
    if !possible("the neighbour of a flooding sandbox") {
        return;
    }
    let vpc = Vpc::new("blue");
    let limits = Limits { sandbox_connections_max: 50, ..Limits::default() };
    let site = Site::start(CardSpec { limits, ..vpc.card(5) });
    let (flooding, neighbour) = (site.attach(), site.attach());
    let stop = Arc::new(AtomicBool::new(false));
    let ended = Arc::clone(&stop);
    let namespace = flooding.namespace();
    // Opens new connections continuously; the limit refuses most of them.
    let flood = thread::spawn(move || {
        crate::support::within(&namespace, || {
            while !ended.load(Ordering::Relaxed) {
                let to = "10.0.0.3:80".parse().unwrap();
                drop(std::net::TcpStream::connect_timeout(&to, Duration::from_millis(50)));
            }
        });
    });
    for _ in 0..20 {
        assert_eq!(greet(&neighbour, "10.0.0.3:80").unwrap(), "blue 10.0.1.5");
        thread::sleep(Duration::from_millis(20));
    }
    stop.store(true, Ordering::Relaxed);
    flood.join().unwrap();
}

#[test]
fn two_busy_sandboxes_have_equal_shares() {
    if !possible("shares of busy sandboxes") {
        return;
    }
    let vpc = Vpc::new("blue");
    let site = Site::start(vpc.card(5));
    let (one, other) = (site.attach(), site.attach());
    let end = Instant::now() + Duration::from_secs(2);
    let rows = [(&one, 1), (&one, 2), (&one, 3), (&other, 4)].map(|(sandbox, _)| {
        let (_, mut stream) = connect(sandbox, "10.0.0.3:80").unwrap();
        let mut reader = stream.try_clone().unwrap();
        thread::spawn(move || {
            let mut piece = vec![0; 65_536];
            while let Ok(1..) = reader.read(&mut piece) {}
        });
        thread::spawn(move || {
            let piece = vec![0; 65_536];
            while Instant::now() < end && stream.write_all(&piece).is_ok() {}
        })
    });
    rows.into_iter().for_each(|row| row.join().unwrap());
    // One connection beside three of another sandbox. TCP decides the shares, so the test only
    // requires that it is not starved.
    assert!(
        other.usage().up_bytes * 10 > one.usage().up_bytes,
        "{:?}",
        (one.usage(), other.usage())
    );
}
