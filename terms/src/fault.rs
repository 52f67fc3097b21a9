//! Fault points: places where a process dies if `MILLRACE_FAULT` names them, one behind each durable
//! step. A test kills a worker at each and finds everything equal in the end.
//!
//! Only debug builds have them: in a release build [`here`] is nothing. I/O rim: it ends the process.

macro_rules! points {
    ($($(#[$doc:meta])* $point:ident,)*) => {
        /// A place between two steps.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Point {
            $($(#[$doc])* $point,)*
        }

        impl Point {
            /// All of them, in the order of a mirror's life.
            pub const ALL: &[Self] = &[$(Self::$point,)*];
        }
    };
}

points! {
    /// The source was looked at; nothing is made there.
    SourceFound,
    /// The publication is committed; there is no slot.
    PublicationMade,
    /// The slot exists; the catalog does not know its position.
    SlotMade,
    /// The catalog knows the slot.
    SlotRecorded,
    /// A destination table was made; the others may be missing.
    DestinationMade,
    /// The stream has its lease, and has not looked at the source.
    LeaseTaken,
    /// The catalog says how far rows may be written; none is.
    Announced,
    /// An epoch was taken; the catalog does not know it.
    EpochTaken,
    /// The catalog knows the epoch.
    EpochRecorded,
    /// The table was cut; the catalog has no partitions.
    PartitionsCut,
    /// The catalog has the partitions; none is copied.
    PartitionsPlanned,
    /// A partition is in the destination, and not done in the catalog.
    PartitionCopied,
    /// A partition is done in the catalog.
    PartitionFinished,
    /// The stream has passed the copy's end; nothing is swept.
    CopyPassed,
    /// The floor of a sweep is stored; nothing is deleted.
    SweepFloorStored,
    /// The sweep's rows are deleted; the table does not stream yet.
    Swept,
    /// The table streams; nobody was told.
    CopyFinished,
    /// A batch of the stream is encoded, and not sent.
    BatchEncoded,
    /// A batch is in the destination; the position is not stored.
    BatchInserted,
    /// The position is stored; the source does not know it.
    PositionStored,
    /// What a TRUNCATE removed is deleted; its floor is not stored.
    Truncated,
    /// The floor of a TRUNCATE is stored; the position is below it.
    TruncateFloorStored,
    /// A table's plan was made anew; nothing was touched.
    ReplanBegun,
    /// The destination table was dropped to be made anew.
    DestinationDropped,
    /// The destination table was made anew; the catalog has the plan of the old one.
    DestinationRemade,
    /// The plan is stored, the table RESYNCING, and the stream fenced.
    Replanned,
    /// The table is RESYNCING by its old plan; nobody was told.
    ResyncMarked,
}

/// The variable that names a point.
pub const VARIABLE: &str = "MILLRACE_FAULT";

/// Dies, if it is told to die here.
#[inline]
pub fn here(point: Point) {
    #[cfg(debug_assertions)]
    armed::die(point);
    #[cfg(not(debug_assertions))]
    let _none = point;
}

#[cfg(debug_assertions)]
mod armed {
    use std::sync::OnceLock;

    use super::{Point, VARIABLE};

    static TOLD: OnceLock<Option<String>> = OnceLock::new();

    pub(super) fn die(point: Point) {
        let told = TOLD.get_or_init(|| std::env::var(VARIABLE).ok());
        if told.as_ref().is_some_and(|told| *told == format!("{point:?}")) {
            eprintln!("{VARIABLE}: dies at {point:?}");
            std::process::abort();
        }
    }
}
