//! The commands of the program.
//!
//! [`serve`] builds the gateway, [`worker`] the process that only runs models, [`apply`] processes
//! files, and [`check`] looks for what would keep a gateway from serving.

pub mod apply;
pub mod check;
#[doc(hidden)]
pub mod fuzz;
pub mod health;
pub mod logs;
pub mod reload;
pub mod sandbox;
pub mod serve;
mod start;
pub mod token;
pub mod worker;
