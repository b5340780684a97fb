//! Counts what the core allocates and how long it takes, and nothing else: only inside [`during`].

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::{Duration, Instant};

struct Counting;

thread_local! {
    static COUNTS: Cell<bool> = const { Cell::new(false) };
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    /// How long the core has worked on this thread.
    pub(crate) static SPENT: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call is handed to the system's allocator as it is; the counters beside it are
// constant-initialised thread locals without destructors, and allocate nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if COUNTS.get() {
            ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        }
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `alloc` above, that is, from the system's allocator.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Runs `work`, and counts what it allocates.
pub(crate) fn during<T>(work: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    COUNTS.set(true);
    let result = work();
    COUNTS.set(false);
    SPENT.set(SPENT.get() + begun.elapsed());
    result
}

/// What has been counted on this thread.
pub(crate) fn allocations() -> u64 {
    ALLOCATIONS.get()
}
