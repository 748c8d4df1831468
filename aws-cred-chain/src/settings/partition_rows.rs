//! The row types of the generated table of partitions.

/// A partition: a part of AWS with its own regions and domains.
#[derive(Debug)]
pub(super) struct Partition {
    pub(super) name: &'static str,
    /// The prefixes of its regions' names. After the prefix, a name has a word and a number.
    pub(super) prefixes: &'static [&'static str],
    /// Names of its regions that have another form.
    pub(super) others: &'static [&'static str],
    pub(super) suffix: &'static str,
    pub(super) dual_stack_suffix: &'static str,
    pub(super) has_fips: bool,
    pub(super) has_dual_stack: bool,
}

/// An endpoint that is not of the form `HOST.REGION.SUFFIX`.
#[derive(Debug)]
pub(super) struct Exception {
    pub(super) service: &'static str,
    pub(super) place: Place,
    pub(super) fips: bool,
    pub(super) dual_stack: bool,
    /// The URL. `{region}` is replaced by the region.
    pub(super) url: &'static str,
}

/// Where an exception applies.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In every region of a partition.
    Partition(&'static str),
    /// In one region.
    Region(&'static str),
}
