//! The division of the machine's cores among tracks: permits by urgency ([`CpuScheduler`]), and a
//! fair share by use ([`CpuShares`]).

mod meter;
mod scheduler;
mod shares;

pub use meter::CpuMeter;
pub use scheduler::{CpuScheduler, MeanWait, Permit, Ticket, Urgency, Waits, leave_one_core_free};
pub use shares::CpuShares;
