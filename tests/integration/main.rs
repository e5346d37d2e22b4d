//! Drives the built program from outside.
