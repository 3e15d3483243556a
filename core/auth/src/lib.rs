//! Tokens: who may do what, for which tenant.
//!
//! A token is shown once, when it is made; the store keeps only its SHA-256, in an object that is
//! created once and never changed. Revoking is another such object beside it, so nothing is ever
//! overwritten or deleted and two operators cannot undo each other's work. [`Tokens`] is what a
//! server asks: it knows the records of at most [`AGE_MAX_US`] ago, and refuses everything when it
//! cannot.
//!
//! This crate knows no HTTP: credentials are found in requests, and refusals put into words, by
//! `stele-http`.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

mod admin;
mod error;
mod record;
mod secret;
mod tokens;

pub use admin::{Listed, NewToken, create, list, revoke};
pub use error::{Damage, Error, Result};
pub use record::{NOTE_BYTES_MAX, Principal, Revocation, Scope, TokenId, TokenRecord};
pub use secret::TokenText;
pub use tokens::{AGE_MAX_US, Tokens};
