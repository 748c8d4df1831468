//! Real AWS clients against a real host with real sandboxes.

#[cfg(test)]
mod aws_cli;
#[cfg(test)]
mod boto3;
#[cfg(test)]
mod cargo_lambda;
#[cfg(test)]
mod day;
#[cfg(test)]
mod deploy;
#[cfg(test)]
mod disks;
#[cfg(test)]
mod durability;
#[cfg(test)]
mod environment;
#[cfg(test)]
mod frameworks;
#[cfg(test)]
mod front_doors;
#[cfg(test)]
mod images;
#[cfg(test)]
mod javascript;
#[cfg(test)]
mod judge;
#[cfg(test)]
mod keys;
#[cfg(test)]
mod layers;
#[cfg(test)]
mod layout;
#[cfg(test)]
mod operator;
#[cfg(test)]
mod powertools;
#[cfg(test)]
mod replay;
#[cfg(test)]
mod roles;
#[cfg(test)]
mod router;
#[cfg(test)]
mod runtimes;
#[cfg(test)]
mod rust;
#[cfg(test)]
mod services;
#[cfg(test)]
mod shutdown;
#[cfg(test)]
mod streaming;
#[cfg(test)]
mod support;
#[cfg(test)]
mod terraform;
#[cfg(all(test, feature = "otlp"))]
mod traces;
#[cfg(test)]
mod websockets;
#[cfg(test)]
mod without_root;
