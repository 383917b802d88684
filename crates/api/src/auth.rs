//! Authentication and permissions. Callers authenticate with a key, a JWT or the HTTP hook; a
//! session is controlled with its secret.
//!
//! [`Authenticator`] turns the credential of a request into a [`Grant`]. The middleware in
//! [`crate::http::access`] defines the permission of each route and runs before the handlers. A
//! session keeps the [`Restrictions`](ooblex_gateway::restrictions::Restrictions) of its grant. Credentials are never logged and are compared
//! in constant time.

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
mod session_secret;
mod throttle;

pub use self::authenticator::Claim;
pub use self::authenticator::{Authenticator, check};
pub use self::caller::Caller;
pub use self::credential::Credential;
pub use self::crypto::hmac;
pub use self::error::AuthError;
pub use self::grant::{Grant, Rooms};
pub use self::hook::Action;
pub use self::session_secret::{SessionAccess, SessionSecret};
