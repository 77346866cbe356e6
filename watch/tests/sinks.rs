//! Sinks against receivers that are slow, broken or gone: queues, web addresses, programs, folders.
#![cfg(unix)]

#[path = "sinks/commands.rs"]
mod commands;
#[path = "sinks/given.rs"]
mod given;
#[path = "sinks/outbox.rs"]
mod outbox;
#[path = "sinks/snapshots.rs"]
mod snapshots;
#[path = "sinks/webhook.rs"]
mod webhook;
