//! The configuration: options of the program, variables and the profile; and the region and
//! endpoints that follow from it.

pub(crate) mod budget;
pub(crate) mod endpoint;
pub(crate) mod options;
mod partition;
mod partition_rows;
mod partition_table;
pub(crate) mod region;
pub(crate) mod run;
