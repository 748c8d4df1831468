//! What is configured: options of the program, variables, the profile; the region and the endpoints that
//! follow from them.

pub(crate) mod budget;
pub(crate) mod endpoint;
pub(crate) mod options;
mod partition;
mod partition_rows;
mod partition_table;
pub(crate) mod region;
pub(crate) mod run;
