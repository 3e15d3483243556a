//! Scheduled functions: an event, and the time and memory there is for it.

use std::fmt::Display;

use lambda_http::lambda_runtime;
use lambda_http::{Context, Error, LambdaEvent, service_fn};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use stele_model::time::SECOND_US;

use crate::emf::{self, Unit};
use crate::start::Start;

/// What one invocation may spend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// When no new round of work may begin, µs since the epoch. What has begun then has the rest of
    /// the invocation's time to end.
    pub deadline_us: i64,
    /// What its work may hold in memory.
    pub memory_bytes: u64,
}

/// For the program itself, its stack, its caches and the allocator's waste.
const RESERVED_BYTES: u64 = 128 << 20;
/// With less than this no job makes progress.
const WORK_BYTES_MIN: u64 = 16 << 20;

impl Room {
    /// Four fifths of the time that is left, but no less than it less a minute and no more than it
    /// less a second; and half of the memory that is not reserved.
    #[must_use]
    fn new(now_us: i64, deadline_us: i64, memory_bytes: u64) -> Self {
        let left_us = deadline_us.saturating_sub(now_us).max(0);
        let spare_us = (left_us / 5).clamp(SECOND_US, 60 * SECOND_US);
        let work_bytes = memory_bytes.saturating_sub(RESERVED_BYTES) / 2;
        Self {
            deadline_us: deadline_us.saturating_sub(spare_us),
            memory_bytes: work_bytes.max(WORK_BYTES_MIN),
        }
    }

    fn of(start: &Start, context: &Context) -> Self {
        let deadline_ms = i64::try_from(context.deadline).unwrap_or(i64::MAX);
        let deadline_us = deadline_ms.saturating_mul(1000);
        Self::new(start.clock.now_us(), deadline_us, start.memory_bytes())
    }
}

/// Handles events one after the other until the service ends the process. An event that cannot be
/// read, or whose handling fails, is a failed invocation: the service tries it again, and at last
/// puts it into the dead-letter queue.
///
/// # Errors
/// When the service's runtime interface fails.
pub async fn run<E, T, F>(start: &Start, handle: impl Fn(E, Room) -> F) -> Result<(), Error>
where
    E: DeserializeOwned,
    T: Serialize,
    F: Future<Output = Result<T, Error>>,
{
    let function = start.function();
    let (handle, function) = (&handle, &function);
    let handler = service_fn(move |event: LambdaEvent<Value>| async move {
        let room = Room::of(start, &event.context);
        let handled = match serde_json::from_value(event.payload) {
            Ok(event) => handle(event, room).await,
            Err(error) => Err(unknown(&error)),
        };
        let failed = u64::from(handled.is_err());
        let metrics = [
            ("Requests", Unit::Count, 1),
            ("Errors", Unit::Count, failed),
        ];
        emf::write(&*start.clock, ("Function", function), &metrics);
        if let Err(error) = &handled {
            tracing::error!(%error, "the invocation failed");
        }
        handled.and_then(|done| Ok(serde_json::to_value(&done)?))
    });
    lambda_runtime::run(handler).await
}

fn unknown(error: &dyn Display) -> Error {
    format!("the event is none of this function's, which look like {{\"job\":\"…\"}}: {error}")
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_room_leaves_time_to_end_and_memory_to_spare() {
        let secs = |secs: i64| secs * SECOND_US;
        for (left, spare) in [(0, 1), (2, 1), (60, 12), (300, 60), (900, 60)] {
            let room = Room::new(secs(1000), secs(1000 + left), 1 << 30);
            assert_eq!(room.deadline_us, secs(1000 + left - spare), "{left}");
        }
        for (memory, work) in [(0, 16), (128, 16), (512, 192), (1024, 448), (10_240, 5_056)] {
            let room = Room::new(0, 0, memory << 20);
            assert_eq!(room.memory_bytes, work << 20, "{memory}");
        }
    }
}
