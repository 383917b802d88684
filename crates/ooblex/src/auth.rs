//! Authentication and permissions: callers authenticate by keys, by tokens or through a hook, and a session belongs to the holder of its secret.
//!
//! [`Authenticator`] turns the credential of a request into a [`Grant`]; [`crate::http::access`] says what each route needs and stands before
//! all of them. The part of a grant that its session keeps are the [`Restrictions`]. No credential is ever logged, and none is compared in a
//! time that depends on it.

mod authenticator;
mod caller;
mod credential;
mod crypto;
mod error;
mod grant;
mod hook;
mod jwks;
pub mod jwt;
pub mod keys;
mod outgoing;
mod session_secret;
mod throttle;

pub(crate) use self::authenticator::Claim;
pub use self::authenticator::{Authenticator, check};
pub use self::caller::Caller;
pub(crate) use self::credential::Credential;
pub(crate) use self::crypto::hmac;
pub use self::error::AuthError;
pub use self::grant::{Allowed, Grant, Restrictions, Rooms};
pub(crate) use self::hook::Action;
pub use self::session_secret::{SessionAccess, SessionSecret};
