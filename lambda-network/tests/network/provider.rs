//! Cards under numbers, as a scheduler uses them.

use std::sync::mpsc;
use std::time::Duration;

use lambda_network::{CardEvent, CardId, CardSpec, Error, Limits, Provider, Rates, Vpc as Range};

use crate::support::{Vpc, connect, greet, ip, possible};

#[test]
fn when_a_card_is_full_new_sandboxes_go_to_a_second() {
    if !possible("a second card") {
        return;
    }
    let vpc = Vpc::new("blue");
    let mut range = Range::new("10.0.0.0/16".parse().unwrap()).unwrap();
    range.add_subnet("lambda", "10.0.1.0/24".parse().unwrap()).unwrap();
    let (say, heard) = mpsc::channel();
    let observer = move |id, event| {
        // The test may have ended.
        let _ = say.send((id, event));
    };
    let provider = Provider::new(4, observer).unwrap();
    let mut spec = |last| {
        let address = range.take("lambda").unwrap();
        let address = format!("{}/16", address.addr()).parse().unwrap();
        let limits = Limits { connections_max: 10, ..Limits::default() };
        CardSpec { address, limits, ..vpc.card(last) }
    };
    let (first, second) = (CardId(1), CardId(2));
    provider.start(first, spec(1)).unwrap();
    assert!(matches!(provider.start(first, spec(2)), Err(Error::Invalid { .. })));
    let sandbox = provider.attach(first, Rates::default()).unwrap();
    let held: Vec<_> = (0..8).map(|_| connect(&sandbox, "10.0.0.3:80").unwrap()).collect();
    let event = heard.recv_timeout(Duration::from_secs(5)).unwrap();
    assert_eq!(event, (first, CardEvent::Full));
    provider.start(second, spec(2)).unwrap();
    let elsewhere = provider.attach(second, Rates::default()).unwrap();
    assert!(greet(&elsewhere, "10.0.0.3:80").is_ok());
    // The first card still serves its sandboxes, and the end of one card does not affect the other.
    assert!(greet(&sandbox, "10.0.0.3:80").is_ok());
    ip(&vpc.namespace, "link delete card1");
    let event = heard.recv_timeout(Duration::from_secs(5)).unwrap();
    assert_eq!(event, (first, CardEvent::Gone));
    assert!(matches!(provider.attach(first, Rates::default()), Err(Error::Gone)));
    assert!(greet(&elsewhere, "10.0.0.3:80").is_ok());
    provider.stop(first);
    provider.stop(second);
    assert!(matches!(provider.attach(second, Rates::default()), Err(Error::Gone)));
    assert!(!vpc.devices().contains("card2"));
    drop(held);
}
