//! Interfaces for tests: nothing is started, and everything is recorded.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lambda_sandbox::BoxFuture;

use super::{
    Attached, FunctionNetwork, InterfaceProvider, InterfaceReport, InterfaceReports, NetworkError,
};
use crate::worker::protocol::InterfaceId;

/// A provider whose interfaces exist only as records. Clones share them.
///
/// It has a default network, and the subnets and security groups that a test adds. An interface is
/// ready at once. Each subnet has the number of addresses that it was added with.
#[derive(Clone, Debug, Default)]
pub struct FakeInterfaces(Arc<Mutex<Records>>);

#[derive(Debug, Default)]
struct Records {
    reports: Option<InterfaceReports>,
    subnets: BTreeMap<String, u32>,
    groups: BTreeSet<String>,
    running: BTreeMap<InterfaceId, FunctionNetwork>,
    attached: BTreeMap<InterfaceId, usize>,
    failing: Option<NetworkError>,
}

impl FakeInterfaces {
    /// Adds a subnet with this number of addresses for interfaces.
    #[must_use]
    pub fn with_subnet(self, id: &str, addresses: u32) -> Self {
        self.records().subnets.insert(id.to_owned(), addresses);
        self
    }

    /// Adds a security group.
    #[must_use]
    pub fn with_security_group(self, id: &str) -> Self {
        self.records().groups.insert(id.to_owned());
        self
    }

    /// Lets the following starts fail with `error`; `None` lets them succeed again.
    pub fn fail(&self, error: Option<NetworkError>) {
        self.records().failing = error;
    }

    /// Reports something of an interface to the host. One that is gone is forgotten.
    pub fn report(&self, interface: InterfaceId, report: InterfaceReport) {
        let mut records = self.records();
        if report == InterfaceReport::Gone {
            records.running.remove(&interface);
        }
        if let Some(reports) = &records.reports {
            reports.send(interface, report);
        }
    }

    /// Returns the interfaces that run, with their networks.
    #[must_use]
    pub fn running(&self) -> BTreeMap<InterfaceId, FunctionNetwork> {
        self.records().running.clone()
    }

    /// Returns the number of sandboxes that are attached to an interface.
    #[must_use]
    pub fn attached(&self, interface: InterfaceId) -> usize {
        self.records().attached.get(&interface).copied().unwrap_or_default()
    }

    fn records(&self) -> MutexGuard<'_, Records> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl InterfaceProvider for FakeInterfaces {
    fn connect(&self, reports: InterfaceReports) {
        self.records().reports = Some(reports);
    }

    fn interfaces_max(&self, network: &FunctionNetwork) -> Result<Option<u32>, NetworkError> {
        let FunctionNetwork::Vpc(vpc) = network else { return Ok(Some(u32::MAX)) };
        let records = self.records();
        let mut addresses = 0_u32;
        for id in &vpc.subnet_ids {
            let unknown = || NetworkError::SubnetUnknown { id: id.clone() };
            let more = records.subnets.get(id).ok_or_else(unknown)?;
            addresses = addresses.saturating_add(*more);
        }
        let unknown = vpc.security_group_ids.iter().find(|id| !records.groups.contains(*id));
        match unknown {
            Some(id) => Err(NetworkError::SecurityGroupUnknown { id: id.clone() }),
            None => Ok(Some(addresses)),
        }
    }

    fn vpc_id(&self, subnet_id: &str) -> Option<String> {
        self.records().subnets.contains_key(subnet_id).then(|| "vpc-fake".to_owned())
    }

    fn start(
        &self,
        interface: InterfaceId,
        network: FunctionNetwork,
    ) -> BoxFuture<'_, Result<(), NetworkError>> {
        let mut records = self.records();
        let result = match records.failing.clone() {
            Some(error) => Err(error),
            None => {
                records.running.insert(interface, network);
                Ok(())
            }
        };
        Box::pin(std::future::ready(result))
    }

    fn stop(&self, interface: InterfaceId) -> BoxFuture<'_, ()> {
        self.records().running.remove(&interface);
        Box::pin(std::future::ready(()))
    }

    fn attach(&self, interface: InterfaceId) -> BoxFuture<'_, Result<Attached, NetworkError>> {
        let mut records = self.records();
        let result = if records.running.contains_key(&interface) {
            *records.attached.entry(interface).or_default() += 1;
            Ok(Attached::new(|_| (), Seat { interface, interfaces: self.clone() }))
        } else {
            Err(NetworkError::Failed { reason: "there is no such interface".to_owned() })
        };
        Box::pin(std::future::ready(result))
    }
}

/// One attached sandbox.
#[derive(Debug)]
struct Seat {
    interface: InterfaceId,
    interfaces: FakeInterfaces,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut records = self.interfaces.records();
        if let Some(count) = records.attached.get_mut(&self.interface) {
            *count -= 1;
        }
    }
}
