//! How hosts become agents and stay so.
//!
//! | file | subject |
//! |---|---|
//! | [`cert_churn`] | certificates that are renewed, revoked, recovered and replaced under load |
//! | [`enrol_killed`] | an enrolment that is cut at every call on files |

pub(super) mod cert_churn;
pub(super) mod enrol_killed;
mod host;
