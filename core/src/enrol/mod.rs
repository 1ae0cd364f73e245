//! Who may be an agent, and what it may do.
//!
//! In: tokens and requests on the enrolment port, certificates that TLS has verified, requests for renewal. Out: certificates,
//! rights, refusals. Promise: a certificate leaves only after the record that stands behind it is durable; whoever holds a
//! token that opens nothing learns nothing about why; a revoked agent is out within a second and stays out; everything that is
//! granted or refused here is in the audit log.
//! Not here: files of the authority (`pki`), tables (`meta`), sessions (`gateway`), which ask here.
//!
//! Reading order: [`token`], [`network`] → [`registrar`] (decides) → [`rights`] (what an agent may do) → [`listener`] (the port) →
//! [`audit`], `refusals`.

pub mod audit;
pub mod listener;
pub mod network;
mod refusals;
pub mod registrar;
pub mod rights;
pub mod token;

pub use audit::{Audit, Event, Outcome};
pub use registrar::{NotAdmitted, Registrar};
pub use rights::Rights;
