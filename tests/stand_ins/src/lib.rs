//! Azure's neighbours as the tests need them: software with states and delays, not canned answers.
//!
//! [`arm`] decides what Container Instances would do and knows no clock, socket or process;
//! [`server`] is its HTTP shell, [`runner`] really runs the containers.

#![forbid(unsafe_code)]

pub mod arm;
